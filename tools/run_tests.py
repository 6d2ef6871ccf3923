"""Runs the tests (what `make test` runs): on the embedded broker, and on a real Apache Kafka.

Kafka's jars are fetched if need be, a broker is started for the session and its address is handed
on as HOMEOSTAT_TEST_KAFKA. Where that is set already, that broker is used. Where neither Java nor
the jars can be had, the Kafka lane is skipped, with a loud line. Arguments go to pytest.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


def main() -> None:
    with kafka() as address:
        environment = {**os.environ, **({VARIABLE: address} if address else {})}
        command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
