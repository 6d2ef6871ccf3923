"""Environments of the servers that ours is compared with.

python -m benchmarks.serving.install    what `make bench-serving-peers` runs
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.environments import FOLDER, Environments, python_of, site_packages

__all__ = ["FOLDER", "install", "python_of", "site_packages"]

_ENVIRONMENTS = Environments(
    Path(__file__).parent / "peers",
    {
        "mlserver": (("mlserver", True),),
        "kserve": (("kserve", True),),
        # Of the wheel only the server is used: what its Python layer depends on is left out.
        "triton": (("triton-server", False), ("triton-model", True)),
        "tritonclient": (("tritonclient", True),),
    },
)


def install(names: Iterable[str] | None = None) -> dict[str, str]:
    """Makes what is missing of those, or of all; why those are absent that could not be made."""
    return _ENVIRONMENTS.install(names)


if __name__ == "__main__":
    sys.exit(1 if install() else 0)
