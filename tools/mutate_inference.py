"""Takes the safeguards of the inference server away, one at a time, in a copy of the last commit,
and runs the tests that have to fail without it. Prints a table; exits with 1 if one did not notice.

    python tools/mutate_inference.py            all of them
    python tools/mutate_inference.py checksum   those whose names contain a word
    python tools/mutate_inference.py --check    only whether every mutation still fits the code
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "services/inference/homeostat_inference"
ROOMS = ("sdk", "kit", "local", "services/inference", "services/registry", "services/monitor", ".")
_POWER = "tests/unit/inference/test_power_loss.py"
_JOURNAL = "tests/unit/inference/test_journal.py"
_LOSSES = "tests/integration/inference/test_losses.py"
_WORKERS = "tests/integration/inference/test_workers.py"
_HOSTILE = "tests/integration/inference/test_hostile_requests.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """A safeguard, the line that holds it, and the tests that guard it."""

    name: str
    file: str
    old: str
    new: str
    # Arguments for pytest.
    tests: tuple[str, ...]
    package: str = PACKAGE

    @property
    def fits(self) -> bool:
        """Whether the line stands in the code, once."""
        return (ROOT / self.package / self.file).read_text().count(self.old) == 1


_WRITER, _FORMAT = "edges/journal_writer.py", "edges/journal_format.py"
MUTATIONS = (
    Mutation(
        "no fdatasync before the answer",
        _WRITER,
        "                os.fdatasync(self._file)\n            except OSError:\n                #",
        "                pass\n            except OSError:\n                #",
        (_POWER,),
    ),
    Mutation(
        "the new segment's name is not synced",
        _WRITER,
        "            sync_folder(self._folder)\n        except OSError:\n            # A file w",
        "            pass\n        except OSError:\n            # A file w",
        (_POWER,),
    ),
    Mutation(
        "the answer goes out before the record is written",
        _WRITER,
        "        self._taken.append(_Entry(kind, payload, done, chain, must))",
        "        if done is not None:\n            done(None)\n"
        "        self._taken.append(_Entry(kind, payload, None, chain, must))",
        (_POWER,),
    ),
    Mutation(
        "no checksum",
        _FORMAT,
        "zlib.crc32(_SEED.pack(position + at, length, kind))) != crc:",
        "zlib.crc32(_SEED.pack(position + at, length, kind))) == -1:",
        (_POWER,),
    ),
    Mutation(
        "the checksum does not know its place",
        _FORMAT,
        "_SEED.pack(position, length, kind)))\n    return HEAD",
        "_SEED.pack(0, length, kind)))\n    return HEAD",
        (_JOURNAL, _POWER),
    ),
    Mutation(
        "a next life does not end what the one before left open",
        _WRITER,
        "        self.append(Kind.BEGIN, pack_mark(time.time_ns() // 1000), must=True)",
        "        pass",
        (_LOSSES, "-k", "killed_with_everybody"),
    ),
    Mutation(
        "a short write is not cut off again",
        _WRITER,
        "        except OSError:\n            self._cut()\n            raise",
        "        except OSError:\n            raise",
        (_JOURNAL, "-k", "after_a_crash_either"),
    ),
    Mutation(
        "records behind a lost one are kept",
        _WRITER,
        "        return self.chain is not None and self.chain.refuses(self.must)",
        "        return False",
        (_JOURNAL, "-k", "chain"),
    ),
    Mutation(
        "what could not be kept is answered all the same",
        "app/keeping.py",
        "                if error is None:\n",
        "                if True:\n",
        (_LOSSES, "-k", "a_full_disk_refuses or quota"),
    ),
    Mutation(
        "a block's end is forgotten",
        "app/book.py",
        "        self._journal.append(Kind.SEAL, payload, chain=block.chain, must=True)",
        "        pass",
        (_LOSSES, "-k", "everybody or leaving"),
    ),
    Mutation(
        "a broker that lost all gets nothing again",
        "edges/slot_relay.py",
        "        self._sent = Sent(epoch, self._reader.start)",
        "        self._sent = Sent(epoch, self._sent.position)",
        (_LOSSES, "-k", "broker_may_die"),
    ),
    Mutation(
        "the relay goes on behind what was not acknowledged",
        "edges/slot_relay.py",
        "        self.steps.begin_anew()\n        self._next = self._sent.position\n\n"
        "    def _prepare",
        "        self.steps.begin_anew()\n        self._next = self._reader.end\n\n"
        "    def _prepare",
        (_LOSSES, "-k", "20_seconds or broker_may_die"),
    ),
    Mutation(
        "rows that kill are never held back",
        "app/supervising.py",
        "ALONE_CRASHES, AMONG_CRASHES = 2, 3",
        "ALONE_CRASHES, AMONG_CRASHES = 10**9, 10**9",
        (_WORKERS, "-k", "kills_workers"),
    ),
    Mutation(
        "no watchdog",
        "worker.py",
        "            self._runs.end_overdue(time.monotonic_ns())",
        "            pass",
        (_WORKERS, "-k", "endless"),
    ),
    Mutation(
        "no limit of a message's length",
        "app/intake.py",
        "        if length > limit:",
        "        if False:",
        (_HOSTILE, "-k", "documented"),
    ),
    Mutation(
        "infinity is taken for a number",
        "domain/batches.py",
        "        good = np.isfinite(values)\n        if good.all():",
        "        good = np.isfinite(values)\n        if True:",
        (_HOSTILE, "-k", "documented"),
    ),
    Mutation(
        "no room for lengths that only claim to be 4 GiB",
        "worker.py",
        "_NATIVE_SPARE_BYTES = 1 << 40",
        "_NATIVE_SPARE_BYTES = 0",
        ("tests/integration/inference/test_misuse.py", "-k", "gib"),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tests made of a mutation."""

    is_noticed: bool
    says: str
    seconds: float


def tried(mutation: Mutation) -> Outcome:
    """Runs the tests on a copy of the repository without the safeguard."""
    with tempfile.TemporaryDirectory(prefix="homeostat-mutant-") as name:
        copy = Path(name)
        _copied(copy)
        file = copy / mutation.package / mutation.file
        file.write_text(file.read_text().replace(mutation.old, mutation.new))
        begun = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutation.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(str(copy / each) for each in ROOMS)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = ran.stdout.decode().splitlines()
    failed = [each for each in lines if each.startswith("FAILED")]
    says = failed[0].partition("::")[2].partition(" - ")[0] if failed else lines[-1]
    # 1: tests failed. Anything else (nothing collected, interrupted) proves nothing.
    return Outcome(ran.returncode == 1 and bool(failed), says, time.monotonic() - begun)


def _copied(into: Path) -> None:
    """What was committed last: a working tree may be in the middle of something."""
    folders = ["sdk", "kit", "local", "services", "tests", "pyproject.toml"]
    packed = subprocess.run(
        ["git", "archive", "HEAD", *folders], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "x", "-C", str(into)], input=packed.stdout, check=True)


def report(mutations: Sequence[Mutation], words: Sequence[str]) -> int:
    """The table of those whose names have one of the words; 0 if every mutation was noticed."""
    stale = [each.name for each in mutations if not each.fits]
    if stale:
        print("the code has changed under these mutations:", *stale, sep="\n  ")
        return 1
    if list(words) == ["--check"]:
        return 0
    is_all_noticed = True
    print("| without | noticed by | seconds |\n|---|---|---|", flush=True)
    for each in mutations:
        if words and not any(word in each.name for word in words):
            continue
        outcome = tried(each)
        is_all_noticed &= outcome.is_noticed
        noticed = f"`{outcome.says}`" if outcome.is_noticed else f"NOBODY {outcome.says}"
        print(f"| {each.name} | {noticed} | {outcome.seconds:.0f} |", flush=True)
    return 0 if is_all_noticed else 1


if __name__ == "__main__":
    sys.exit(report(MUTATIONS, sys.argv[1:]))
