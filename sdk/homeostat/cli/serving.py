"""`homeostat serving`: who answers, beside the champion and in its place."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict

from homeostat.cli import sharing
from homeostat.cli.serving_status import show_server
from homeostat.cli.shared import FOLDER, Folder, console, run, show_table
from homeostat.events.v1.serving_pb2 import Serving
from homeostat.inference.v1.serving_pb2 import GetServingResponse, ServedVersion
from homeostat.registry.v1.registry_pb2 import Model, Stage, Version

_HELP = (
    "Who answers a model's requests, and how they run together.\n\n"
    "Besides the champion a model may have up to 4 [bold]shadows[/bold] (compute the same rows, "
    "never answer), a [bold]canary[/bold] (answers a share), and a [bold]fallback[/bold] (answers "
    "while the kill switch is on, or while the champion is held back after crashes). Every row is "
    "logged with its arm and version; every change stands in the audit with who made it.\n\n"
    "Begin with [bold]homeostat serving show MODEL[/bold]; in trouble, "
    "[bold]homeostat serving kill MODEL[/bold]."
)

_Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_Number = Annotated[int, typer.Argument(metavar="VERSION", help="Counts from 1.", min=1)]
_MaybeNumber = Annotated[
    int | None, typer.Argument(metavar="[VERSION]", help="Counts from 1.", min=1)
]
_Off = Annotated[bool, typer.Option("--off", help="Take it out instead.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit.")]
_Json = Annotated[bool, typer.Option("--json", help="For programs.")]
_Wait = Annotated[
    float,
    typer.Option("--wait", help="Seconds to wait for the inference server; 0: do not.", min=0),
]

commands = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode="rich")


@commands.command()
def show(model: _Name, folder: Folder = FOLDER, as_json: _Json = False) -> None:
    """Shows a model's arms: version, share, stage, and what the inference server reports."""

    async def ask() -> tuple[Model, dict[int, Version], sharing.Seen]:
        found = await sharing.snapshot(folder)
        models = {each.name: each for each in found.models}
        if model not in models:
            names = ", ".join(sorted(models)[:10]) or "none"
            raise LookupError(f"no model {model!r}; there are: {names}; see `homeostat models`")
        versions = {
            each.version: each
            for each in (*found.champions, *found.others)
            if each.model_name == model
        }
        return models[model], versions, await sharing.seen(folder)

    found, versions, seen = run(ask())
    _show(found, versions, seen, as_json=as_json)


def _show(model: Model, versions: dict[int, Version], seen: sharing.Seen, *, as_json: bool) -> None:
    served = _served(model.name, seen.answer)
    if as_json:
        _print_json(
            model,
            arms=[
                {"arm": arm, "version": version, "share": share}
                for arm, version, share in _arms(model)
            ],
            server=[MessageToDict(each, preserving_proto_field_name=True) for each in served],
            server_silence=seen.silence,
        )
        return
    by_version = {each.version: each for each in served}
    show_table(
        f"{model.name} at revision {model.revision}",
        ("arm", "version", "share", "stage", "ready workers", "one row", "each further", "trouble"),
        (
            (
                arm,
                version,
                f"{share:.4g}" if arm != "shadow" else "every row",
                _stage(versions.get(version)),
                *_reported(by_version.get(version)),
            )
            for arm, version, share in _arms(model)
        ),
    )
    console.print(f"batching: {_batching(model.serving)}", markup=False)
    if model.serving.is_on_fallback:
        console.print(
            f"the kill switch is on; back with `homeostat serving restore {model.name}`",
            markup=False,
        )
    if seen.answer is None:
        console.print(f"the inference server was not asked: {seen.silence}", markup=False)
    elif any(0 < each.model_revision < model.revision for each in served):
        console.print("the inference server does not follow this revision yet", markup=False)


def _arms(model: Model) -> Iterator[tuple[str, int, float]]:
    """Arm, version and share of the requests that name no version."""
    serving = model.serving
    canary = serving.canary.share if serving.HasField("canary") else 0.0
    on = serving.is_on_fallback
    if model.HasField("champion_version"):
        yield "champion", model.champion_version, 0.0 if on else 1.0 - canary
    if serving.HasField("canary"):
        yield "canary", serving.canary.version, 0.0 if on else canary
    if serving.HasField("fallback_version"):
        yield "fallback", serving.fallback_version, 1.0 if on else 0.0
    for each in serving.shadow_versions:
        yield "shadow", each, 0.0


def _served(model: str, answer: GetServingResponse | None) -> list[ServedVersion]:
    return [each for each in answer.versions if each.model_name == model] if answer else []


def _stage(version: Version | None) -> str:
    return Stage.Name(version.stage).removeprefix("STAGE_").lower() if version else ""


def _reported(served: ServedVersion | None) -> tuple[object, ...]:
    if served is None:
        return "", "", "", ""
    return (
        served.ready_workers,
        _milliseconds(served.first_row_seconds),
        _milliseconds(served.further_row_seconds),
        served.error,
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds else ""


def _batching(serving: Serving) -> str:
    if not serving.HasField("batching"):
        return "whatever waits runs at once"
    batching = serving.batching
    preferred = ", ".join(map(str, batching.preferred_rows))
    return (
        f"at most {batching.max_rows or 'the default number of'} rows, waits up to "
        f"{batching.max_delay_seconds * 1e3:g} ms"
        + (f", preferred: {preferred} rows" if preferred else "")
    )


@commands.command()
def shadow(
    model: _Name,
    version: _Number,
    off: _Off = False,
    reason: _Reason = "",
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Lets a version compute every row of the champion, unheard; --off ends it.

    Its answers are logged with the arm "shadow", and joined with the same truth. It must take the
    champion's inputs and have its classes.
    """

    def edit(serving: Serving) -> None:
        others = [each for each in serving.shadow_versions if each != version]
        serving.shadow_versions[:] = others if off else [*others, version]

    _change(folder, model, edit, reason, as_json=as_json)


@commands.command()
def canary(
    model: _Name,
    version: _MaybeNumber = None,
    share: Annotated[
        float | None,
        typer.Option("--share", help="Of the requests that name no version, as 0.1 for a tenth."),
    ] = None,
    is_random: Annotated[
        bool,
        typer.Option("--random", help="Draw anew for each request, not by the client's id."),
    ] = False,
    off: _Off = False,
    reason: _Reason = "",
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Lets a version answer a share of the requests; --off gives them back to the champion.

    A client (by its homeostat.id) stays on its side while the share stays, unless --random.
    """
    if not off and (version is None or share is None):
        raise ValueError(
            "a canary needs a version and a share: "
            f"`homeostat serving canary {model} VERSION --share 0.1`, or --off"
        )

    def edit(serving: Serving) -> None:
        serving.ClearField("canary")
        if not off and version is not None and share is not None:
            serving.canary.version = version
            serving.canary.share = share
            serving.canary.is_random = is_random
            rest = [each for each in serving.shadow_versions if each != version]
            serving.shadow_versions[:] = rest

    _change(folder, model, edit, reason, as_json=as_json)


@commands.command()
def fallback(
    model: _Name,
    version: _MaybeNumber = None,
    off: _Off = False,
    reason: _Reason = "",
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Names the version that answers when the champion may not; --off names none.

    It is kept loaded, so that `homeostat serving kill` takes effect at once. An older champion, or
    a simple model that can't fail, is a good choice.
    """
    if off:
        version = None
    elif version is None:
        raise ValueError(f"name a version: `homeostat serving fallback {model} VERSION`, or --off")
    else:
        run(sharing.require_not_quarantined(folder, model, version))

    def edit(serving: Serving) -> None:
        if version is None and serving.is_on_fallback:
            raise ValueError(
                f"the fallback answers now; first `homeostat serving restore {model}`, then --off"
            )
        serving.ClearField("fallback_version")
        if version is not None:
            serving.fallback_version = version

    _change(folder, model, edit, reason, as_json=as_json)


@commands.command()
def kill(
    model: _Name,
    to: Annotated[
        int | None,
        typer.Option("--to", help="Version to answer, where no fallback is named yet.", min=1),
    ] = None,
    reason: _Reason = "",
    wait: _Wait = 30.0,
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """The kill switch: the fallback answers instead of champion and canary, at once.

    Waits until the inference server's workers follow, and says how long that took.
    """

    def edit(serving: Serving) -> None:
        if to is not None:
            serving.fallback_version = to
        if not serving.HasField("fallback_version"):
            raise ValueError(
                f"{model} has no fallback to answer: name one with `homeostat serving fallback "
                f"{model} VERSION`, or at once with `homeostat serving kill {model} --to VERSION`"
            )
        serving.is_on_fallback = True

    _switch(folder, model, edit, reason, wait, as_json=as_json)


@commands.command()
def restore(
    model: _Name,
    reason: _Reason = "",
    wait: _Wait = 30.0,
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Turns the kill switch off: champion and canary answer again."""

    def edit(serving: Serving) -> None:
        serving.is_on_fallback = False

    _switch(folder, model, edit, reason, wait, as_json=as_json)


@commands.command()
def batching(
    model: _Name,
    max_rows: Annotated[
        int, typer.Option("--max-rows", help="Rows of one run at most; 0: the default.", min=0)
    ] = 0,
    max_delay: Annotated[
        float,
        typer.Option("--max-delay", help="Milliseconds that a request may wait for others."),
    ] = 0.0,
    preferred: Annotated[
        str, typer.Option("--preferred", help="Numbers of rows to run with, as 8,32,128.")
    ] = "",
    off: Annotated[bool, typer.Option("--off", help="Whatever waits runs at once.")] = False,
    reason: _Reason = "",
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Sets how many requests of a version run together, and how long they may wait for it.

    Without it whatever waits runs at once, which is best for small models: waiting pays where one
    run of many rows is much cheaper than many runs. `homeostat advise` measures that.
    """
    if not off and not (max_rows or max_delay or preferred):
        raise ValueError(
            f"say how: `homeostat serving batching {model} --max-rows 64 --max-delay 2 "
            "--preferred 8,32,64`, or --off"
        )
    rows = _row_numbers(preferred)

    def edit(serving: Serving) -> None:
        serving.ClearField("batching")
        if not off:
            serving.batching.max_rows = max_rows
            serving.batching.max_delay_seconds = max_delay / 1e3
            serving.batching.preferred_rows.extend(rows)

    _change(folder, model, edit, reason, as_json=as_json)


def _row_numbers(text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",") if each.strip()]
    except ValueError:
        raise ValueError(
            f"--preferred {text!r} is no list of numbers; write it as 8,32,128"
        ) from None


@commands.command()
def status(folder: Folder = FOLDER, as_json: _Json = False) -> None:
    """Shows the inference server: workers, journals, what is held back, and every trouble's cure.

    The exit code is 0 only if all is well.
    """
    answer = run(sharing.reported(folder))
    if as_json:
        typer.echo(json.dumps(_whole(answer), indent=2))
    else:
        show_server(answer)
    if answer.degraded_reasons:
        raise typer.Exit(1)


@commands.command()
def release(
    model: _Name,
    version: _Number,
    fingerprint: Annotated[
        str,
        typer.Argument(metavar="[FINGERPRINT]", help="Of one input; default: all of the version."),
    ] = "",
    folder: Folder = FOLDER,
) -> None:
    """Lets a version, or one input of it, run again that was held back after crashes."""
    count = run(sharing.release(folder, model, version, fingerprint))
    what = f"{model} version {version}" + (f", input {fingerprint}" if fingerprint else "")
    if not count:
        raise LookupError(f"nothing of {what} is held back; see `homeostat serving status`")
    typer.echo(f"{what}: {count} released")


def _change(
    folder: Path, model: str, edit: Callable[[Serving], None], reason: str, *, as_json: bool
) -> None:
    changed = run(sharing.change(folder, model, edit, reason))
    if as_json:
        _print_json(changed)
    else:
        _say(changed)


def _switch(
    folder: Path,
    model: str,
    edit: Callable[[Serving], None],
    reason: str,
    wait: float,
    *,
    as_json: bool,
) -> None:
    """Changes it and waits until the server follows."""

    async def work() -> tuple[Model, float | None]:
        changed = await sharing.change(folder, model, edit, reason)
        return changed, await sharing.follow(folder, changed, wait) if wait else None

    changed, seconds = run(work())
    if as_json:
        _print_json(changed, followed_after_seconds=seconds)
        return
    who = (
        f"fallback version {changed.serving.fallback_version}"
        if changed.serving.is_on_fallback
        else f"champion version {changed.champion_version}"
    )
    followed = "" if seconds is None else f"; every worker follows, {seconds:.2f} s after"
    typer.echo(f"{model}: {who} answers{followed}")


def _say(model: Model) -> None:
    parts = [
        f"{arm} {version}" + (f" ({share:.4g})" if arm in ("champion", "canary") else "")
        for arm, version, share in _arms(model)
    ]
    typer.echo(f"{model.name}: {', '.join(parts) or 'no champion'}; {_batching(model.serving)}")


def _print_json(model: Model, **more: Any) -> None:
    told = {
        "model": model.name,
        "revision": model.revision,
        "champion_version": model.champion_version,
        "serving": _whole(model.serving),
    }
    typer.echo(json.dumps(told | more, indent=2))


def _whole(message: Any) -> dict[str, Any]:
    """With what is empty too: a program can rely on its being there."""
    told: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return told


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(commands, name="serving")
