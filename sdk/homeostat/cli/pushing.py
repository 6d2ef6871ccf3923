"""`homeostat push`: a model, its past, and what it said of it."""

import getpass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from homeostat.cli.shared import FOLDER, Folder, console, run
from homeostat.endpoints import address
from homeostat.history import Columns
from homeostat.push import Push, Pushed, prepare, send
from homeostat.registry.v1.registry_pb2 import AUTONOMY_UNSPECIFIED, Autonomy, Stage

_Model = Annotated[Path, typer.Argument(help="A single-file ONNX model.", exists=True)]
_History = Annotated[
    Path,
    typer.Option("--history", help="Parquet: the rows the model was trained on.", exists=True),
]
_Truth = Annotated[str, typer.Option("--truth", help="The history's column with the truth.")]
_Time = Annotated[str, typer.Option("--time", help="Column: when each row happened (UTC).")]
_KnownAt = Annotated[
    str | None, typer.Option("--known-at", help="Column: when its truth became known.")
]
_Loss = Annotated[
    str | None,
    typer.Option("--holdout-loss", help="Column: loss on rows not trained on, else null."),
]
_Name = Annotated[str | None, typer.Option("--name", help="Model name; default: the file's.")]
_Autonomy = Annotated[
    str | None,
    typer.Option(
        "--autonomy",
        help="observe, recommend, approve or auto: who may promote. A new model's: approve.",
    ),
]
_Task = Annotated[
    str | None,
    typer.Option(
        "--task", help="binary, multiclass or regression, where the truth leaves it open."
    ),
]
_Recipe = Annotated[str, typer.Option("--recipe", help="How to retrain: lightgbm, sklearn, …")]


def push(
    model: _Model,
    history: _History,
    truth: _Truth,
    time: _Time,
    known_at: _KnownAt = None,
    holdout_loss: _Loss = None,
    name: _Name = None,
    autonomy: _Autonomy = None,
    recipe: _Recipe = "lightgbm",
    recipe_parameters: Annotated[str, typer.Option(help="As JSON.")] = "{}",
    context: Annotated[
        list[str] | None,
        typer.Option("--context", help="Column the model does not use, kept for diagnosis."),
    ] = None,
    nullable: Annotated[
        list[str] | None,
        typer.Option("--nullable", help="Input that may be missing though the history has none."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Class names in the score output's order, by comma.")
    ] = None,
    task: _Task = None,
    score_output: Annotated[
        str | None, typer.Option(help="The output with the probabilities or the value.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Binary: decide class 1 from here on.")] = 0.5,
    folder: Folder = FOLDER,
) -> None:
    """Puts a model under Homeostat's care, with its own past, and says what is missing.

    Example: homeostat push late.onnx --history january.parquet --truth late --time departs
    --known-at arrived
    """
    told = Push(
        model_name=name or model.stem,
        model_path=model,
        history_path=history,
        columns=Columns(truth, time, known_at, holdout_loss, tuple(context or ())),
        autonomy=parse_autonomy(autonomy) if autonomy else AUTONOMY_UNSPECIFIED,
        recipe=recipe,
        recipe_parameters=recipe_parameters,
        classes=tuple(classes.split(",")) if classes else (),
        task=task,
        nullable=tuple(nullable or ()),
        score_output=score_output,
        decision_threshold=threshold,
        # Whoever pushes may not approve: the same name as approve and promote use.
        author=getpass.getuser(),
    )
    with console.status("reading the model and its history") as status:
        prepared = prepare(told)
        pushed = run(
            send(
                prepared,
                registry_address=address("registry", folder),
                ledger_address=address("ledger", folder),
                say=status.update,
            )
        )
    _show(told.model_name, pushed)


def parse_autonomy(word: str) -> "Autonomy.ValueType":
    """The level of that name; ValueError lists them."""
    try:
        return Autonomy.Value(f"AUTONOMY_{word.upper()}")
    except ValueError:
        raise ValueError(
            f"autonomy {word!r} is none of observe, recommend, approve, auto"
        ) from None


def _show(model_name: str, pushed: Pushed) -> None:
    version = pushed.version
    stage = Stage.Name(version.stage).removeprefix("STAGE_").lower()
    said = (
        f"{model_name} version {version.version} ({stage}), {pushed.history_rows:,} rows of "
        f"history, sha256 {version.model_sha256[:12]}"
    )
    # Texts, since brackets of names and sentences are no markup.
    console.print(Text.assemble(("pushed ", "green"), said))
    for reason in version.reasons:
        console.print(Text(f"  {reason}"))
    for sentence in pushed.notes:
        console.print(Text.assemble(("note ", "yellow"), sentence))
    for sentence in pushed.missing:
        console.print(Text.assemble(("missing ", "yellow"), sentence))


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(push)
