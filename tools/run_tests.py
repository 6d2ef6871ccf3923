"""Runs the tests (what `make test` runs): on the embedded broker, and on a real Apache Kafka.

Kafka's jars are fetched if need be, a broker is started for the session and its address is handed
on as HOMEOSTAT_TEST_KAFKA. Where that is set already, that broker is used. Where neither Java nor
the jars can be had, the Kafka lane is skipped, with a loud line. Arguments go to pytest; without
any, the unit tests run beside the others, which mostly wait, and are shown after them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fetch_kafka import NoKafka, fetch

from homeostat_local.kafka import KafkaDidNotStart, java, start_kafka

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "HOMEOSTAT_TEST_KAFKA"


@contextmanager
def kafka() -> Iterator[str | None]:
    """The address of a real Kafka for as long as the context is open; None where there is none."""
    if given := os.environ.get(VARIABLE):
        yield given
        return
    try:
        if java() is None:
            raise NoKafka("Java is not installed")
        jars = fetch()
        with (
            tempfile.TemporaryDirectory(prefix="homeostat-kafka-") as folder,
            start_kafka(jars, Path(folder)) as running,
        ):
            print(f"Real Apache Kafka for the tests at {running.address}", flush=True)
            yield running.address
    except (NoKafka, KafkaDidNotStart) as reason:
        _say_that_it_is_skipped(str(reason))
        yield None


def _say_that_it_is_skipped(reason: str) -> None:
    line = "!" * 98
    print(f"{line}\n!!! SKIPPED: every test on a real Apache Kafka. {reason}\n{line}", flush=True)


def _pytest(environment: Mapping[str, str], arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def _all(environment: Mapping[str, str]) -> int:
    """Everything; the last lines say how either half ended."""
    others = [str(each) for each in sorted((ROOT / "tests").glob("[!_]*/")) if _holds_tests(each)]
    command = [sys.executable, "-m", "pytest", "tests/unit", "-p", "no:cacheprovider"]
    with tempfile.TemporaryFile("w+") as told:
        beside = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=told, stderr=subprocess.STDOUT
        )
        code = _pytest(environment, others)
        unit_code = beside.wait()
        told.seek(0)
        print(told.read(), flush=True)
    print(f"tests/unit ended with {unit_code}, everything else (above it) with {code}", flush=True)
    return code or unit_code


def _holds_tests(folder: Path) -> bool:
    return folder.name != "unit" and any(folder.rglob("test_*.py"))


def main() -> None:
    with kafka() as address:
        environment = {**os.environ, **({VARIABLE: address} if address else {})}
        arguments = sys.argv[1:]
        code = _pytest(environment, arguments) if arguments else _all(environment)
    sys.exit(code)


if __name__ == "__main__":
    main()
