"""How a model's traffic is shared between its versions: what may be set, and what outlives a change
of champion."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from homeostat_registry.domain.errors import Invalid, WrongStage
from homeostat_registry.domain.facts import Signature, Stage, Tensor, Version
from homeostat_registry.domain.serving import Batching, Serving

# Each shadow computes every row that the champion answers.
MOST_SHADOWS = 4
# A run of more rows holds up all others for longer than it saves.
MOST_BATCH_ROWS = 65_536
# Who waits longer for company is answered late for nothing.
MOST_DELAY_SECONDS = 1.0
_MOST_PREFERRED = 16


def check_serving(wanted: Serving) -> None:
    """Invalid, with the cure, if it can't be right whatever the versions are."""
    shadows = wanted.shadow_versions
    if len(shadows) > MOST_SHADOWS:
        raise Invalid(
            f"serving: {len(shadows)} shadow versions; {MOST_SHADOWS} is the limit, since each "
            "computes every row of the champion"
        )
    if len(set(shadows)) != len(shadows):
        raise Invalid("serving: a shadow version is named twice; name each once")
    if 0 in wanted.versions():
        raise Invalid("serving: versions count from 1; leave out what is not meant")
    canary = wanted.canary
    if canary is not None and not 0 < canary.share < 1:
        raise Invalid(
            f"serving: the canary's share is {canary.share:g}; it must be more than 0 and less "
            "than 1: leave the canary out, or promote it"
        )
    if canary is not None and canary.version in shadows:
        raise Invalid(
            f"serving: version {canary.version} is canary and shadow; its answers as canary are "
            "logged already: take it from the shadows"
        )
    if wanted.is_on_fallback and wanted.fallback_version is None:
        raise Invalid("serving: is_on_fallback needs a fallback_version; name the one to answer")
    if wanted.batching is not None:
        _check_batching(wanted.batching)


def _check_batching(batching: Batching) -> None:
    if batching.max_rows > MOST_BATCH_ROWS:
        raise Invalid(f"batching: max_rows is {batching.max_rows}; {MOST_BATCH_ROWS} is the limit")
    delay = batching.max_delay_seconds
    if not (math.isfinite(delay) and 0 <= delay <= MOST_DELAY_SECONDS):
        raise Invalid(
            f"batching: max_delay_seconds is {delay:g}; it must lie between 0 and "
            f"{MOST_DELAY_SECONDS:g} (seconds, not milliseconds)"
        )
    preferred = batching.preferred_rows
    if len(preferred) > _MOST_PREFERRED:
        raise Invalid(f"batching: {len(preferred)} preferred_rows; {_MOST_PREFERRED} is the limit")
    if any(one >= two for one, two in zip((0, *preferred), preferred, strict=False)):
        raise Invalid("batching: preferred_rows must be more than 0 and ascend")
    most = batching.max_rows or MOST_BATCH_ROWS
    if preferred and preferred[-1] > most:
        raise Invalid(
            f"batching: {preferred[-1]} preferred_rows are more than max_rows, {most}; "
            "raise max_rows or leave it out"
        )


def require_servable(
    wanted: Serving, champion: Version | None, versions: Mapping[int, Version], model_name: str
) -> None:
    """Invalid or WrongStage, with the cure, where a version can't take the champion's requests.

    ``versions`` holds all that ``wanted`` names.
    """
    if champion is None:
        if wanted.versions():
            raise WrongStage(
                f"{model_name} has no champion yet: promote a version before others share its "
                "traffic"
            )
        return
    for role, number in _roles(wanted):
        version = versions[number]
        who = f"{model_name} version {number} can't be {role}"
        if number == champion.version:
            raise Invalid(f"{who}: it is the champion; name another version")
        if version.stage is Stage.REJECTED and role != _SHADOW:
            raise WrongStage(
                f"{who}: it was rejected; let it run as a shadow, or promote it by hand"
            )
        misfits = tuple(_misfits(version.signature, champion.signature, role))
        if misfits:
            raise Invalid(f"{who} beside version {champion.version}: {' '.join(misfits)}")


_SHADOW, _CANARY, _FALLBACK = "shadow", "canary", "fallback"


def _roles(of: Serving) -> Iterator[tuple[str, int]]:
    for each in of.shadow_versions:
        yield _SHADOW, each
    if of.canary is not None:
        yield _CANARY, of.canary.version
    if of.fallback_version is not None:
        yield _FALLBACK, of.fallback_version


def _misfits(one: Signature, champion: Signature, role: str) -> Iterator[str]:
    """Why what ``one`` takes and gives is not what the champion takes and gives."""
    if one.task is not champion.task:
        yield f"it is for {one.task.name.lower()}, not {champion.task.name.lower()}."
    if one.classes != champion.classes:
        yield "its classes are others, or in another order."
    yield from _different("input", one.inputs, champion.inputs)
    if role == _SHADOW:
        return
    # Clients get these two's answers in place of the champion's.
    yield from _different("output", one.outputs, champion.outputs)
    if one.request_id_is_client_id != champion.request_id_is_client_id:
        yield "it takes the request's id for the client's id where the champion does not, or not."


def _different(what: str, ours: Sequence[Tensor], champions: Sequence[Tensor]) -> Iterator[str]:
    here, there = ({each.name: each for each in tensors} for tensors in (ours, champions))
    for name in sorted(there.keys() - here.keys())[:3]:
        yield f"it has no {what} {name!r}."
    for name in sorted(here.keys() - there.keys())[:3]:
        yield f"the champion has no {what} {name!r}."
    shared = [name for name in here if name in there and here[name] != there[name]]
    for name in shared[:3]:
        yield f"its {what} {name!r} is {_spoken(here[name])}, not {_spoken(there[name])}."


def _spoken(tensor: Tensor) -> str:
    nullable = " nullable" if tensor.is_nullable else ""
    return f"{tensor.datatype}{list(tensor.shape)}{nullable}"


def without(serving: Serving, is_gone: Callable[[str, int], bool]) -> Serving:
    """Without the versions of which ``is_gone`` says so by role and number; the kill switch goes
    with its fallback."""
    gone = {(role, number) for role, number in _roles(serving) if is_gone(role, number)}
    canary, fallback = serving.canary, serving.fallback_version
    has_fallback = fallback is not None and (_FALLBACK, fallback) not in gone
    return dataclasses.replace(
        serving,
        shadow_versions=tuple(
            each for each in serving.shadow_versions if (_SHADOW, each) not in gone
        ),
        canary=canary if canary and (_CANARY, canary.version) not in gone else None,
        fallback_version=fallback if has_fallback else None,
        is_on_fallback=serving.is_on_fallback and has_fallback,
    )


def after_rejection(serving: Serving, rejected: Sequence[int]) -> Serving:
    """What was refused answers nobody; it may go on as a shadow."""
    return without(serving, lambda role, number: role != _SHADOW and number in rejected)


def under_champion(serving: Serving, champion: Version, versions: Mapping[int, Version]) -> Serving:
    """What goes on beside a new champion: not itself, and none that takes or gives other things."""

    def is_gone(role: str, number: int) -> bool:
        if number == champion.version:
            return True
        return any(_misfits(versions[number].signature, champion.signature, role))

    return without(serving, is_gone)


def spoken_changes(before: Serving, after: Serving) -> tuple[str, ...]:
    """What left the traffic with a change of stages, one sentence each."""
    left = [pair for pair in _roles(before) if pair not in set(_roles(after))]
    return tuple(f"Version {number} is no longer {role}." for role, number in left)


def told(before: Serving, after: Serving) -> tuple[str, ...]:
    """What a person changed, one sentence each."""
    return tuple(_told(before, after)) or ("Nothing changed.",)


def _told(before: Serving, after: Serving) -> Iterator[str]:
    if before.is_on_fallback != after.is_on_fallback:
        yield (
            f"Kill switch on: version {after.fallback_version} answers."
            if after.is_on_fallback
            else "Kill switch off: the champion answers."
        )
    if before.canary != after.canary:
        yield (
            f"Version {after.canary.version} is canary with {after.canary.share:.4g} of the "
            f"requests{', drawn for each' if after.canary.is_random else ''}."
            if after.canary
            else "No canary."
        )
    if before.shadow_versions != after.shadow_versions:
        yield f"Shadows: {', '.join(map(str, after.shadow_versions)) or 'none'}."
    if before.fallback_version != after.fallback_version:
        yield f"Fallback: {after.fallback_version or 'none'}."
    if before.batching != after.batching:
        yield f"Batching: {_spoken_batching(after.batching)}."


def _spoken_batching(batching: Batching | None) -> str:
    if batching is None:
        return "whatever waits runs at once"
    preferred = ", ".join(map(str, batching.preferred_rows)) or "none"
    return (
        f"at most {batching.max_rows or 'the default'} rows, {batching.max_delay_seconds:g} s of "
        f"waiting, preferred {preferred}"
    )
