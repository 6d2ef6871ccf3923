"""Starts a real Apache Kafka (one KRaft node on loopback) from a folder of jars, for tests."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from homeostat_local.ports import choose_port

START_SECONDS = 60.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_READY = "Kafka Server started"
_TEMPLATE = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "server.properties"
# A short life: the quick compiler and the simple collector start in half the time.
_JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
"""


class KafkaDidNotStart(RuntimeError):
    """Kafka ended or was not ready in time; the message ends with its last log lines."""


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """A broker that serves; ``address`` is host:port. Leaving the context stops it."""

    address: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """Ends the broker: asked first, killed after ``STOP_SECONDS``. Its data stay."""
        if self.process.poll() is None:
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
            return
        self.kill()

    def kill(self) -> None:
        """Ends the broker at once, as kill -9 does."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "RunningKafka":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def java() -> str | None:
    """The Java to run, of JAVA_HOME or PATH; None when there is none."""
    home = os.environ.get("JAVA_HOME")
    if home and (Path(home) / "bin" / "java").exists():
        return str(Path(home) / "bin" / "java")
    return shutil.which("java")


def start_kafka(jars_folder: Path, data_folder: Path, port: int = 0) -> RunningKafka:
    """Starts a broker and returns when it serves (4 s on an idle machine).

    A folder that held a broker is continued: same cluster id, same records, and with port 0 the
    same port. Raises ``KafkaDidNotStart``.
    """
    data_folder.mkdir(parents=True, exist_ok=True)
    port, properties = _configure(data_folder, port)
    if not (data_folder / "log" / "meta.properties").exists():
        _format(jars_folder, data_folder, properties)
    output = data_folder / "kafka.log"
    command = _command(jars_folder, data_folder, "kafka.Kafka", str(properties))
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*_dying_with_us(), *command],
            cwd=data_folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    running = RunningKafka(f"127.0.0.1:{port}", process)
    try:
        _await_ready(running, output)
    except BaseException:
        running.kill()
        raise
    return running


def _configure(data_folder: Path, port: int) -> tuple[int, Path]:
    """Writes the settings; the ports of an earlier start stand, since Kafka records them."""
    remembered = data_folder / "ports.json"
    ports: dict[str, int] = json.loads(remembered.read_text()) if remembered.exists() else {}
    ports["port"] = port or ports.get("port") or choose_port()
    ports["controller_port"] = ports.get("controller_port") or choose_port(taken=ports.values())
    remembered.write_text(json.dumps(ports))
    (data_folder / "log4j2.properties").write_text(_LOGGING)
    properties = data_folder / "server.properties"
    fields = {**ports, "log_folder": str(data_folder / "log")}
    properties.write_text(_TEMPLATE.read_text().format(**fields))
    return ports["port"], properties


def _command(jars_folder: Path, data_folder: Path, main: str, *arguments: str) -> list[str]:
    found = java()
    if found is None:
        raise KafkaDidNotStart("no Java found; install Java 17 or set JAVA_HOME")
    logging = f"-Dlog4j2.configurationFile={data_folder / 'log4j2.properties'}"
    return [found, *_JVM, logging, "-cp", f"{jars_folder.resolve()}/*", main, *arguments]


def _dying_with_us() -> list[str]:
    """Linux: the broker ends with the process that started it, however that ends."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _format(jars_folder: Path, data_folder: Path, properties: Path) -> None:
    """Makes the storage of a new cluster, with an id of its own."""
    tool = "kafka.tools.StorageTool"
    made = _run(_command(jars_folder, data_folder, tool, "random-uuid"))
    cluster_id = made.split()[-1]
    arguments = ("format", "-t", cluster_id, "-c", str(properties), "--standalone")
    _run(_command(jars_folder, data_folder, tool, *arguments))


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_SECONDS, check=False
    )
    if done.returncode != 0:
        raise KafkaDidNotStart(f"{command[-1]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _await_ready(running: RunningKafka, output: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while _READY not in output.read_text(errors="replace"):
        if running.process.poll() is not None or time.monotonic() > deadline:
            tail = output.read_text(errors="replace")[-2000:]
            raise KafkaDidNotStart(f"Kafka did not start at {running.address}:\n{tail}")
        time.sleep(_POLL_SECONDS)
