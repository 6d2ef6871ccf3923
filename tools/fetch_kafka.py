"""Fetches the jars of a real Apache Kafka into `.kafka/jars` (what `make kafka` runs).

Maven brings them, from wherever it is set up to look; `deploy/kafka/jars.sha256` says what they
must be. Ends with 0 when they are there, with 1 and the reason when they cannot be had.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JARS = ROOT / ".kafka" / "jars"
POM = ROOT / "deploy" / "kafka" / "pom.xml"
SUMS = ROOT / "deploy" / "kafka" / "jars.sha256"
FETCH_SECONDS = 240


class NoKafka(RuntimeError):
    """The jars cannot be had here; the message says why."""


def fetch() -> Path:
    """The folder of the verified jars, fetched if need be. Raises ``NoKafka``."""
    if _wrong_jars():
        _copy_dependencies()
        if wrong := _wrong_jars():
            raise NoKafka(f"these jars are missing or not what they should be: {', '.join(wrong)}")
    return JARS


def _wrong_jars() -> list[str]:
    """Names whose file is absent or differs, and of files that nobody asked for."""
    lines = [line.split() for line in SUMS.read_text().splitlines()]
    wanted = {name: digest for digest, name in lines}
    found = {path.name: _sha256(path) for path in JARS.glob("*.jar")}
    names = sorted(wanted.keys() | found.keys())
    return [name for name in names if wanted.get(name) != found.get(name)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_dependencies() -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoKafka("Maven (mvn) is not installed")
    shutil.rmtree(JARS, ignore_errors=True)
    command = [maven, "-B", "-q", "--strict-checksums", "-f", str(POM)]
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={JARS}"]
    try:
        done = subprocess.run(
            [*command, *goal], capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise NoKafka(f"Maven had not fetched them in {FETCH_SECONDS} s") from late
    if done.returncode != 0:
        raise NoKafka(f"Maven failed: {(done.stdout + done.stderr).strip()[-600:]}")


def main() -> None:
    try:
        print(f"Kafka's jars: {fetch().relative_to(ROOT)}")
    except NoKafka as reason:
        sys.exit(f"No Kafka jars: {reason}")


if __name__ == "__main__":
    main()
