"""What `homeostat serving` asks of the registry and of the inference server."""

import asyncio
import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from homeostat.cli.shared import channel
from homeostat.endpoints import NoEndpoint
from homeostat.errors import HomeostatError
from homeostat.events.v1.column_pb2 import ARM_PINNED
from homeostat.events.v1.serving_pb2 import Serving
from homeostat.inference.v1.serving_pb2 import (
    WORKER_STATE_READY,
    GetServingRequest,
    GetServingResponse,
    ReleaseQuarantineRequest,
)
from homeostat.inference.v1.serving_pb2_grpc import ServingServiceStub
from homeostat.registry.v1.registry_pb2 import (
    GetModelRequest,
    GetSnapshotRequest,
    GetSnapshotResponse,
    Model,
    SetServingRequest,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

_SECONDS = 30.0
# A table is not worth waiting for a server that hangs.
_GLANCE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_TRIES = 5


class NotServed(HomeostatError):
    """The inference server does not follow; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the inference server says of itself, or why it says nothing."""

    answer: GetServingResponse | None
    silence: str = ""
    # It answers, and knows no such question.
    is_deaf: bool = False


async def snapshot(folder: Path) -> GetSnapshotResponse:
    """All models and whoever serves them, from the registry."""
    async with channel("registry", folder) as opened:
        return await RegistryServiceStub(opened).GetSnapshot(GetSnapshotRequest(), timeout=_SECONDS)


async def change(folder: Path, name: str, edit: Callable[[Serving], None], reason: str) -> Model:
    """Changes one part of a model's serving, and leaves what others change at the same time."""
    async with channel("registry", folder) as opened:
        registry = RegistryServiceStub(opened)
        for left in reversed(range(_TRIES)):
            asked = await registry.GetModel(GetModelRequest(model_name=name), timeout=_SECONDS)
            wanted = Serving()
            wanted.CopyFrom(asked.model.serving)
            edit(wanted)
            if wanted == asked.model.serving:
                return asked.model
            request = SetServingRequest(
                model_name=name,
                serving=wanted,
                etag=asked.model.etag,
                actor=getpass.getuser(),
                reason=reason,
            )
            try:
                answer = await registry.SetServing(request, timeout=_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED or not left:
                    raise
                continue
            return answer.model
    raise AssertionError("the last try returns or raises")


async def seen(folder: Path) -> Seen:
    """What the inference server reports; nothing, and why, where it can't be asked."""
    try:
        return Seen(await reported(folder))
    except NoEndpoint as error:
        return Seen(None, str(error))
    except grpc.aio.AioRpcError as error:
        code = error.code()
        return Seen(
            None,
            f"{code.name.lower().replace('_', ' ')}: {error.details()}",
            is_deaf=code is grpc.StatusCode.UNIMPLEMENTED,
        )


async def reported(folder: Path) -> GetServingResponse:
    """What the inference server reports."""
    async with channel("inference", folder) as opened:
        return await ServingServiceStub(opened).GetServing(
            GetServingRequest(), timeout=_GLANCE_SECONDS
        )


async def follow(folder: Path, model: Model, seconds: float) -> float:
    """Seconds until every ready worker follows the model's revision; NotServed after ``seconds``.

    A server that tells nothing of itself is not waited for.
    """
    began = time.monotonic()
    glimpse = Seen(None)
    while (spent := time.monotonic() - began) < seconds:
        glimpse = await seen(folder)
        if glimpse.answer is not None and _follows(glimpse.answer, model):
            return time.monotonic() - began
        if glimpse.is_deaf:
            break
        await asyncio.sleep(_POLL_SECONDS)
    why = glimpse.silence or _trouble(glimpse.answer, model.name) or "it is not there yet"
    raise NotServed(
        f"the registry has it (revision {model.revision}), but the inference server did not say "
        f"within {spent:.1f} s that it follows: {why}. It follows as soon as it can; see "
        f"`homeostat serving status`, and look again with `homeostat serving show {model.name}`"
    )


def _trouble(answer: GetServingResponse | None, model: str) -> str:
    """What keeps its versions from being loaded."""
    return "; ".join(
        f"version {each.version}: {each.error}"
        for each in (answer.versions if answer else ())
        if each.model_name == model and each.error
    )


def _follows(answer: GetServingResponse, model: Model) -> bool:
    """Whether its ready workers follow, and whoever is to answer is loaded in each."""
    served = [
        each for each in answer.versions if each.model_name == model.name and each.arm != ARM_PINNED
    ]
    who = model.serving.fallback_version if model.serving.is_on_fallback else model.champion_version
    workers = sum(each.state == WORKER_STATE_READY for each in answer.workers)
    return all(each.model_revision >= model.revision for each in served) and any(
        each.version == who and each.ready_workers >= max(1, workers) for each in served
    )


async def release(folder: Path, model: str, version: int, fingerprint: str) -> int:
    """Lets run again what was held back; how many were."""
    async with channel("inference", folder) as opened:
        answer = await ServingServiceStub(opened).ReleaseQuarantine(
            ReleaseQuarantineRequest(
                model_name=model, version=version, input_fingerprint=fingerprint
            ),
            timeout=_SECONDS,
        )
    return answer.released_count


async def require_not_quarantined(folder: Path, model: str, version: int) -> None:
    """NotServed if the server holds the version back: it could not answer. Unasked, it passes."""
    answer = (await seen(folder)).answer
    for each in answer.quarantines if answer else ():
        is_whole = not each.input_fingerprint
        if is_whole and (each.model_name, each.version) == (model, version):
            raise NotServed(
                f"{model} version {version} is in quarantine ({each.reason}) and would not answer: "
                f"name another, or let it run again with `homeostat serving release {model} "
                f"{version}`"
            )
