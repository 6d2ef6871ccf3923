"""What follows from a worker's death: who is suspected, who is held back, when the next starts."""

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from homeostat_inference.app.plan import QuarantinePlan

# A version that was running when a worker died runs its requests one by one for so long.
SUSPECT_SECONDS = 60.0
# Crashes with the row running alone; or among others, of which any may be the culprit.
ALONE_CRASHES, AMONG_CRASHES = 2, 3
# So many within so long hold a whole version back.
VERSION_CRASHES, VERSION_SECONDS = 5, 300.0
# So many while it was loaded do.
LOAD_CRASHES = 2
# Restarts are at once, until so many deaths fall into so long.
DEATHS, DEATH_SECONDS = 5, 10.0
_LONGEST_PAUSE_SECONDS = 30.0
_REMEMBERED_ROWS = 10_000
_COUNTED_RUN_ROWS = 256

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class DeadRun:
    """A run that was under way in a worker when it died."""

    model_name: str
    version: int
    # 0: it was being loaded.
    rows: int
    # One per row, or nothing if they are not known.
    fingerprints: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        """Of the version."""
        return self.model_name, self.version


@dataclass(slots=True)
class Held:
    """What is held back, and since when."""

    model_name: str
    version: int
    # Empty: the whole version.
    input_fingerprint: str
    crash_count: int
    reason: str
    since_us: int
    # Not even loading it went well.
    is_unloadable: bool = False


@dataclass(slots=True)
class _Row:
    alone: int = 0
    among: int = 0


@dataclass(slots=True)
class CrashBook:
    """Remembers crashes and draws the consequences. Times in seconds of a monotonic clock."""

    held: list[Held] = field(default_factory=list)
    _suspects: dict[Key, float] = field(default_factory=dict)
    _crashes: dict[Key, list[float]] = field(default_factory=dict)
    _rows: dict[tuple[str, int, str], _Row] = field(default_factory=dict)

    def note(self, runs: Sequence[DeadRun], reason: str, now: float, now_us: int) -> None:
        """A worker died while these ran. Of several versions any may be the culprit: none is
        counted, and each runs its requests one by one until one of them is found alone."""
        for run in runs:
            self._suspects[run.key] = now + SUSPECT_SECONDS
            self._note_rows(run, len(runs) == 1, reason, now_us)
        keys = {each.key for each in runs}
        if len(keys) == 1:
            has_rows = any(each.rows for each in runs)
            self._note_version(keys.pop(), has_rows, reason, now, now_us)

    def _note_rows(self, run: DeadRun, is_only: bool, reason: str, now_us: int) -> None:
        if run.rows > _COUNTED_RUN_ROWS:
            return
        for name in set(run.fingerprints):
            row = self._rows.setdefault((*run.key, name), _Row())
            row.among += 1
            row.alone += is_only and run.rows == 1
            if row.alone >= ALONE_CRASHES or row.among >= AMONG_CRASHES:
                del self._rows[*run.key, name]
                self._hold(run.key, name, row.among, reason, now_us)
        while len(self._rows) > _REMEMBERED_ROWS:
            del self._rows[next(iter(self._rows))]

    def _note_version(self, key: Key, has_rows: bool, reason: str, now: float, now_us: int) -> None:
        lately = [each for each in self._crashes.get(key, []) if now - each < VERSION_SECONDS]
        self._crashes[key] = lately = [*lately, now]
        # A version that can't be loaded would take the others' workers with it.
        if len(lately) >= (VERSION_CRASHES if has_rows else LOAD_CRASHES):
            del self._crashes[key]
            self._hold(key, "", len(lately), reason, now_us, is_unloadable=not has_rows)

    def _hold(
        self, key: Key, name: str, crashes: int, reason: str, now_us: int, *,
        is_unloadable: bool = False,
    ) -> None:  # fmt: skip
        if not any((*key, name) == _name(each) for each in self.held):
            text = f"a worker ended {crashes} times while it ran, last by {reason}"
            self.held.append(Held(*key, name, crashes, text, now_us, is_unloadable))

    def release(self, model_name: str, version: int, input_fingerprint: str) -> int:
        """Lets it run again; how many quarantines that were. No fingerprint: all of the version."""

        def is_meant(name: tuple[str, int, str]) -> bool:
            return name[:2] == (model_name, version) and input_fingerprint in ("", name[2])

        kept = [each for each in self.held if not is_meant(_name(each))]
        released = len(self.held) - len(kept)
        self.held = kept
        self._rows = {name: row for name, row in self._rows.items() if not is_meant(name)}
        if not input_fingerprint:
            self._crashes.pop((model_name, version), None)
            self._suspects.pop((model_name, version), None)
        return released

    def suspects(self, now: float) -> tuple[Key, ...]:
        """Versions whose requests run one by one."""
        self._suspects = {key: until for key, until in self._suspects.items() if until > now}
        return tuple(sorted(self._suspects))

    def unloadable(self) -> set[Key]:
        """Versions that end whoever loads them."""
        return {(each.model_name, each.version) for each in self.held if each.is_unloadable}

    def plans(self) -> tuple[QuarantinePlan, ...]:
        """What workers are told of what is held back."""
        whole = [
            QuarantinePlan(each.model_name, each.version, each.reason)
            for each in self.held
            if not each.input_fingerprint
        ]
        rows: dict[Key, list[Held]] = {}
        for each in self.held:
            if each.input_fingerprint:
                rows.setdefault((each.model_name, each.version), []).append(each)
        return (
            *whole,
            *(
                QuarantinePlan(*key, some[-1].reason, tuple(e.input_fingerprint for e in some))
                for key, some in rows.items()
            ),
        )

    def stored(self) -> list[dict[str, Any]]:
        """What has to outlive the keeper."""
        return [asdict(each) for each in self.held]

    def restore(self, stored: Iterable[Mapping[str, Any]]) -> None:
        """What `stored` gave; TypeError if it is something else."""
        self.held = [Held(**each) for each in stored]


def _name(held: Held) -> tuple[str, int, str]:
    return held.model_name, held.version, held.input_fingerprint


@dataclass(slots=True)
class Restarts:
    """How long a slot waits after a death. Times in seconds of a monotonic clock."""

    _deaths: list[float] = field(default_factory=list)
    _pause: float = 0.0

    def pause(self, now: float) -> float:
        """Seconds until the next start: none, unless deaths heap up."""
        self._deaths = [each for each in self._deaths if now - each < DEATH_SECONDS]
        self._deaths.append(now)
        is_looping = len(self._deaths) > DEATHS or (self._pause and len(self._deaths) > 1)
        self._pause = min(max(1.0, 2 * self._pause), _LONGEST_PAUSE_SECONDS) if is_looping else 0.0
        return self._pause

    @property
    def is_looping(self) -> bool:
        """It died again and again lately."""
        return self._pause > 0


def end_reason(status: int, runs: Sequence[DeadRun], killed_for: str) -> str:
    """How a worker ended, for people: a wait status, what it ran, and why it was killed if it was.

    For example "signal 8 (SIGFPE) while risk version 3 ran".
    """
    if killed_for:
        how = killed_for
    elif status & 0x7F:
        number = status & 0x7F
        try:
            how = f"signal {number} ({signal.Signals(number).name})"
        except ValueError:
            how = f"signal {number}"
    else:
        how = f"exit status {status >> 8}"
    names = sorted(
        f"{each.model_name} version {each.version} {'ran' if each.rows else 'was loaded'}"
        for each in runs
    )
    return f"{how} while {' and '.join(dict.fromkeys(names))}" if names else how
