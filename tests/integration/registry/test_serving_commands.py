"""`homeostat serving` beside a real registry and an inference server that says what tests want."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.integration.registry.harness import Registry
from tests.integration.registry.test_registry_serving import with_versions
from tests.support.ports import free_port

from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_FALLBACK, ARM_PINNED
from homeostat.events.v1.serving_pb2 import Batching, Canary, Serving
from homeostat.inference.v1 import serving_pb2 as sv
from homeostat.inference.v1.serving_pb2_grpc import (
    ServingServiceServicer,
    add_ServingServiceServicer_to_server,
)

HOMEOSTAT = Path(sys.executable).with_name("homeostat")


@dataclass
class Server(ServingServiceServicer):
    """Says of itself what a test wants."""

    address: str
    answer: sv.GetServingResponse = field(default_factory=sv.GetServingResponse)
    # Set where it follows the registry's revision after so many questions.
    follows: tuple[int, int] | None = None
    asked: int = 0
    released: list[sv.ReleaseQuarantineRequest] = field(default_factory=list)

    async def GetServing(  # noqa: N802
        self, request: sv.GetServingRequest, context: Any
    ) -> sv.GetServingResponse:
        self.asked += 1
        if self.follows is not None and self.asked >= self.follows[0]:
            for each in self.answer.versions[:2]:
                each.model_revision = self.follows[1]
        return self.answer

    async def ReleaseQuarantine(  # noqa: N802
        self, request: sv.ReleaseQuarantineRequest, context: Any
    ) -> sv.ReleaseQuarantineResponse:
        self.released.append(request)
        return sv.ReleaseQuarantineResponse(released_count=1 if request.version == 2 else 0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    address = f"127.0.0.1:{free_port()}"
    standin = Server(address)
    running = grpc.aio.server()
    add_ServingServiceServicer_to_server(standin, running)  # type: ignore[no-untyped-call]
    running.add_insecure_port(address)
    await running.start()
    yield standin
    await running.stop(None)


class Shell:
    """A user's prompt."""

    def __init__(self, registry: Registry, server: Server, folder: Path) -> None:
        self._folder = folder
        self.environment = {
            **os.environ,
            "HOMEOSTAT_REGISTRY_ADDRESS": f"127.0.0.1:{registry.of.port}",
            "HOMEOSTAT_INFERENCE_ADDRESS": server.address,
            "COLUMNS": "200",
        }

    async def run(self, *words: str, code: int = 0) -> str:
        """What it said: standard output, or the error's line."""
        process = await asyncio.create_subprocess_exec(
            HOMEOSTAT, "serving", *words,
            cwd=self._folder, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, trouble = (each.decode() for each in await process.communicate())
        assert process.returncode == code, told + trouble
        if code and not told:
            assert trouble.startswith("error ")
            assert trouble.count("\n") == 1
        return told or trouble


@pytest.fixture
def shell(registry: Registry, server: Server, tmp_path: Path) -> Shell:
    return Shell(registry, server, tmp_path)


async def test_arms_are_set_one_by_one_and_shown_together(
    registry: Registry, shell: Shell, name: str
) -> None:
    await with_versions(registry, name, 4)
    said = await shell.run("shadow", name, "2")
    assert said == f"{name}: champion 1 (1), shadow 2; whatever waits runs at once\n"
    await shell.run("shadow", name, "3")
    await shell.run("canary", name, "3", "--share", "0.1", "--random", "--reason", "a trial")
    await shell.run("fallback", name, "4")
    await shell.run("batching", name, "--max-rows", "64", "--max-delay", "2", "--preferred", "8,64")
    assert (await registry.model(name)).serving == Serving(
        shadow_versions=[2],
        canary=Canary(version=3, share=0.1, is_random=True),
        fallback_version=4,
        batching=Batching(max_rows=64, max_delay_seconds=0.002, preferred_rows=[8, 64]),
    )
    shown = await shell.run("show", name)
    for words in ("champion  1        0.9", "canary    3        0.1", "fallback  4        0 "):
        assert words in shown
    assert "shadow    2        every row" in shown
    assert "at most 64 rows, waits up to 2 ms, preferred: 8, 64 rows" in shown
    found = json.loads(await shell.run("show", name, "--json"))
    assert found["serving"]["canary"] == {"version": 3, "share": 0.1, "is_random": True}
    assert found["arms"][0] == {"arm": "champion", "version": 1, "share": 0.9}
    for arm, version in (("shadow", "2"), ("canary", ""), ("fallback", ""), ("batching", "")):
        await shell.run(arm, name, *filter(None, [version]), "--off")
    assert (await registry.model(name)).serving == Serving()
    audit = [each for each in await registry.audit() if each.model_name == name]
    assert '"reason":"a trial"' in " ".join(each.detail for each in audit)


async def test_what_the_server_reports_stands_beside_it(
    registry: Registry, shell: Shell, server: Server, name: str
) -> None:
    await with_versions(registry, name, 1)
    server.answer.versions.add(
        model_name=name, version=1, arm=ARM_CHAMPION, ready_workers=3,
        first_row_seconds=0.00042, error="a word of trouble", model_revision=1,
    )  # fmt: skip
    shown = await shell.run("show", name)
    assert "0.42 ms" in shown
    assert "a word of trouble" in shown
    assert "does not follow this revision yet" in shown


async def test_the_kill_switch_says_when_every_worker_followed(
    registry: Registry, shell: Shell, server: Server, name: str
) -> None:
    await with_versions(registry, name, 2)
    revision = (await registry.model(name)).revision
    for slot in range(2):
        server.answer.workers.add(slot=slot, state=sv.WORKER_STATE_READY)
    for version, arm in ((1, ARM_CHAMPION), (2, ARM_FALLBACK)):
        server.answer.versions.add(
            model_name=name, version=version, arm=arm, model_revision=1, ready_workers=2
        )
    server.answer.versions.add(model_name=name, version=1, arm=ARM_PINNED)
    server.follows = (3, revision + 1)
    said = await shell.run("kill", name, "--to", "2", "--reason", "wrong answers")
    assert said.startswith(f"{name}: fallback version 2 answers; every worker follows, ")
    assert server.asked >= 3
    assert (await registry.model(name)).serving == Serving(fallback_version=2, is_on_fallback=True)
    assert "the kill switch is on" in await shell.run("show", name)
    assert "then --off" in await shell.run("fallback", name, "--off", code=1)
    server.follows = (0, revision + 2)
    told = json.loads(await shell.run("restore", name, "--json"))
    assert told["followed_after_seconds"] < 30
    assert not (await registry.model(name)).serving.is_on_fallback


async def test_a_server_that_does_not_follow_is_named(
    registry: Registry, shell: Shell, server: Server, name: str
) -> None:
    await with_versions(registry, name, 2)
    server.answer.versions.add(model_name=name, version=1, model_revision=1)
    said = await shell.run("kill", name, "--to", "2", "--wait", "0.5", code=1)
    assert "the registry has it" in said
    assert "it is not there yet" in said
    server.answer.versions.add(
        model_name=name, version=2, arm=ARM_FALLBACK, model_revision=99, error="no file of it"
    )
    said = await shell.run("kill", name, "--wait", "0.5", code=1)
    assert "version 2: no file of it" in said
    assert (await registry.model(name)).serving.is_on_fallback
    shell.environment["HOMEOSTAT_INFERENCE_ADDRESS"] = f"127.0.0.1:{free_port()}"
    assert "unavailable" in await shell.run("restore", name, "--wait", "0.5", code=1)
    assert "was not asked: unavailable" in await shell.run("show", name)
    assert "answers\n" in await shell.run("restore", name, "--wait", "0")


async def test_every_error_names_its_cure(
    registry: Registry, shell: Shell, server: Server, name: str
) -> None:
    await with_versions(registry, name, 2)
    server.answer.quarantines.add(model_name=name, version=2, reason="5 crashes")
    for words, cure in (
        (["kill", name], f"`homeostat serving fallback {name} VERSION`"),
        (["canary", name, "2"], "--share 0.1"),
        (["canary", name, "2", "--share", "1.5"], "more than 0 and less than 1"),
        (["fallback", name], "VERSION`, or --off"),
        (["fallback", name, "2"], f"`homeostat serving release {name} 2`"),
        (["shadow", name, "9"], "no version 9"),
        (["batching", name], "--max-rows 64"),
        (["batching", name, "--preferred", "8;9"], "8,32,128"),
        (["show", "nobody"], "see `homeostat models`"),
        (["release", name, "1"], "see `homeostat serving status`"),
    ):
        assert cure in await shell.run(*words, code=1), words


async def test_status_tells_every_trouble_with_its_cure_and_exits_with_1(
    shell: Shell, server: Server
) -> None:
    answer = server.answer
    answer.server_name, answer.durability = "inference-0", "durable"
    assert "all is well" in await shell.run("status")
    answer.degraded_reasons.append("no broker: start it; [rows] wait in the journal")
    answer.workers.add(
        slot=1, state=sv.WORKER_STATE_READY, process_id=77, restart_count=2,
        last_end="signal 8 (SIGFPE) in risk version 3", memory_bytes=96 << 20,
    )  # fmt: skip
    answer.journals.add(slot="1", journal_bytes=1 << 20, quota_bytes=1 << 30, is_refusing=True)
    answer.quarantines.add(model_name="risk", version=2, input_fingerprint="ab12", crash_count=2)
    answer.loss_counts["refused_rows"] = 7
    shown = await shell.run("status", code=1)
    for words in (
        "no broker: start it; [rows] wait in the journal",
        "signal 8 (SIGFPE) in risk version 3",
        "96 MiB",
        "refuses new rows",
        "homeostat serving release risk 2 ab12",
        "refused_rows 7",
    ):
        assert words in shown
    told = json.loads(await shell.run("status", "--json", code=1))
    assert told["workers"][0]["restart_count"] == "2"
    assert await shell.run("release", "risk", "2", "ab12") == (
        "risk version 2, input ab12: 1 released\n"
    )
    assert server.released[-1].input_fingerprint == "ab12"
