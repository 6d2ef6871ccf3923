"""The deployment files fit the code: checked without an engine."""

import ast
import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from homeostat_kit.grpc_server import serve
from homeostat_kit.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SERVICES = ("registry", "inference", "ledger", "monitor", "retrainer")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
YAML_FILES = sorted((ROOT / "deploy").rglob("*.y*ml"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


def settings_class(service: str) -> type[ServiceSettings]:
    """The one settings class that the service's module defines."""
    module = importlib.import_module(f"homeostat_{service}.settings")
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, ServiceSettings)
        and each.__module__ == module.__name__
    ]
    assert len(found) == 1, found
    return found[0]


def declared_metrics() -> Iterator[tuple[str, str]]:
    """(name, unit) of every metric that a service's metrics file declares by (name, unit, meaning).

    A file may leave the prefix to one helper; then its names are short.
    """
    for service in SERVICES:
        path = ROOT / "services" / service / f"homeostat_{service}" / "metrics.py"
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                named = [each.value for each in node.keywords if each.arg == "unit"]
                match [*node.args[:1], *named, *node.args[1:]]:
                    case [ast.Constant(str(name)), ast.Constant(str(unit)), *_]:
                        prefix = "" if name.startswith("homeostat.") else f"homeostat.{service}."
                        yield prefix + name, unit


def prometheus_names(name: str, unit: str) -> set[str]:
    """What the collector may call it: unit and kind become suffixes, annotations do not."""
    suffix = {"s": "_seconds", "By": "_bytes", "ms": "_milliseconds", "1": "_ratio"}.get(unit, "")
    base = name.replace(".", "_")
    base = base if base.endswith(suffix) else base + suffix
    return {base + kind for kind in ("", "_total", "_bucket", "_sum", "_count")}


def test_compose_is_a_compose_file() -> None:
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        [BIN / "hadolint", "deploy/docker/Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_files_parse(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_every_port_is_published_on_loopback_only() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default() -> None:
    """An empty value in .env, as in .env.example, stops the start with a message."""
    text = (ROOT / "compose.yaml").read_text()
    used = re.findall(r"\$\{(\w+)(:\?)?", text)
    assert used
    assert all(required for _, required in used)
    example = [
        line.partition("=")
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert {name for name, _, _ in example} == {name for name, _ in used}
    assert not any(value for _, _, value in example)


def test_every_named_volume_and_mounted_file_exists() -> None:
    for each in COMPOSE["services"].values():
        for volume in each.get("volumes", []):
            source = volume.split(":")[0]
            assert (
                (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
            )


@pytest.mark.parametrize("service", SERVICES)
def test_the_environment_in_compose_is_what_the_service_reads(service: str) -> None:
    prefix = f"HOMEOSTAT_{service.upper()}_"
    fields = settings_class(service).model_fields
    environment = COMPOSE["services"][service]["environment"]
    unknown = {
        name
        for name in environment
        if not name.startswith(prefix) or name.removeprefix(prefix).lower() not in fields
    }
    assert not unknown


@pytest.mark.parametrize("service", SERVICES)
def test_compose_tells_every_service_its_secrets_and_the_way_to_the_others(service: str) -> None:
    """A default that fits a laptop does not fit a container."""
    prefix = f"HOMEOSTAT_{service.upper()}_"
    own = {"kafka_bootstrap_servers", "grpc_address", "data_folder", "otlp_endpoint"}
    must = own | {
        name
        for name, field in settings_class(service).model_fields.items()
        if name.endswith("_address") or field.annotation is SecretStr
    }
    if service == "inference":
        must -= {"database_url"}  # it has no database
    told = {
        name.removeprefix(prefix).lower() for name in COMPOSE["services"][service]["environment"]
    }
    assert must <= told


@pytest.mark.parametrize("service", SERVICES)
def test_services_listen_on_the_ports_that_the_others_call(service: str) -> None:
    environment = COMPOSE["services"][service]["environment"]
    port = environment[f"HOMEOSTAT_{service.upper()}_GRPC_ADDRESS"].rpartition(":")[2]
    http = environment.get(f"HOMEOSTAT_{service.upper()}_HTTP_ADDRESS", "").rpartition(":")[2]
    listens = [f"127.0.0.1:{each}:{each}" for each in (port, http) if each]
    assert COMPOSE["services"][service]["ports"] == listens
    calls = {
        value
        for each in SERVICES
        for name, value in COMPOSE["services"][each]["environment"].items()
        if name.endswith(f"_{service.upper()}_ADDRESS")
    }
    assert calls <= {f"{service}:{port}"}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_requirements_for_its_image(service: str) -> None:
    assert (ROOT / "requirements" / "services" / f"{service}.txt").exists()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_metric_of_a_dashboard_is_declared_by_a_service(path: Path) -> None:
    known = {each for name, unit in declared_metrics() for each in prometheus_names(name, unit)}
    expressions = [
        target["expr"]
        for panel in json.loads(path.read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    used = {name for each in expressions for name in re.findall(r"homeostat_\w+", each)}
    assert used
    assert used <= known


def test_every_service_declares_metrics() -> None:
    told = {name.split(".")[1] for name, _ in declared_metrics()}
    assert told == set(SERVICES)


def test_the_real_kafka_of_tests_and_of_compose_are_the_same_version() -> None:
    tag = COMPOSE["services"]["kafka"]["image"].partition(":")[2]
    pom = (ROOT / "deploy" / "kafka" / "pom.xml").read_text()
    assert f"<kafka.version>{tag}</kafka.version>" in pom


def imported_packages(folder: Path) -> set[str]:
    """Top-level names that the code below a folder imports, anywhere in it."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_holds_every_package_that_its_service_imports(service: str) -> None:
    text = (ROOT / "requirements" / "services" / f"{service}.txt").read_text()
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    folders = (ROOT / "kit", ROOT / "services" / service)
    distributions = packages_distributions()
    missing = {
        package: distributions.get(package)
        for package in set().union(*map(imported_packages, folders)) - set(sys.stdlib_module_names)
        if not package.startswith("homeostat")
        and not {each.lower() for each in distributions.get(package, [])} & pinned
    }
    assert not missing


async def is_healthy(address: str) -> int:
    """The exit status of the image's health check for a service at this address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "deploy" / "docker" / "is_healthy.py"),
        env={**os.environ, "SERVICE": "monitor", "HOMEOSTAT_MONITOR_GRPC_ADDRESS": address},
    )
    return await process.wait()


async def test_a_container_is_healthy_while_its_service_serves() -> None:
    server = await serve("127.0.0.1:0", lambda _: None, errors={}, service_names=[])
    try:
        assert await is_healthy(f"0.0.0.0:{server.port}") == 0
    finally:
        await server.stop()
    assert await is_healthy(f"0.0.0.0:{server.port}") == 1


def test_a_wheel_holds_every_sql_file(tmp_path: Path) -> None:
    """Services read their SQL as package data: what a wheel lacks, an installed service lacks."""
    copy = tmp_path / "source"
    shutil.copytree(
        ROOT,
        copy,
        # What is hidden is no source: environments, data, what a benchmark has left.
        ignore=shutil.ignore_patterns(".*", "build"),
    )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    wheel = next(tmp_path.glob("homeostat-*.whl"))
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".sql")}
    wanted = {
        f"{path.parents[1].name}/sql/{path.name}"
        for folder in ("kit", "services")
        for path in (ROOT / folder).rglob("sql/*.sql")
    }
    assert wanted
    assert held == wanted
