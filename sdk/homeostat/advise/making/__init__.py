"""Makes another form of a model file. Runs in a process of its own: converters may die."""

from pathlib import Path

from homeostat.advise.forms import Form
from homeostat.advise.making.refusal import NotPossible
from homeostat.advise.subject import Arrays

__all__ = ["NotPossible", "make"]


def make(form: Form, content: bytes, calibration: Arrays, target: Path) -> None:
    """Writes the form to ``target``; NotPossible says why the model has none.

    A file, or for `Form.COMPILED` a folder. Converters are imported where they are used: each is
    heavy, and a form whose library is absent must not stop the others.
    """
    if form is Form.COMPILED:
        from homeostat.advise.making import compiled  # noqa: PLC0415

        compiled.build(content, target)
        return
    if form is Form.FLOAT16:
        from homeostat.advise.making import halved  # noqa: PLC0415

        made = halved.convert(content)
    elif form is Form.INT8_BY_ROW:
        from homeostat.advise.making import by_row  # noqa: PLC0415

        made = by_row.convert(content)
    else:
        from homeostat.advise.making import quantised  # noqa: PLC0415

        made = (
            quantised.static(content, calibration)
            if form is Form.INT8_STATIC
            else quantised.dynamic(content)
        )
    target.write_bytes(made)
