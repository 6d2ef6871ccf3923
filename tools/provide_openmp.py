"""Lets LightGBM load where the system has no OpenMP library (`libgomp.so.1`), as a bare machine.

scikit-learn's wheel carries that library under a name of its own. Where the system's is missing, a
copy that bears the usual name is put into the environment, and a `.pth` file loads it when Python
starts; LightGBM then finds it loaded. Where the system has one, nothing is done. Linux only: on
macOS LightGBM asks for `brew install libomp`.
"""

import ctypes
import sys
import sysconfig
from pathlib import Path

NAME = "libgomp.so.1"
SITE = Path(sysconfig.get_paths()["purelib"])
COPY = SITE / "homeostat_openmp" / NAME
LOADER = SITE / "homeostat_openmp.pth"


def is_loadable(name: str) -> bool:
    """Whether the dynamic linker finds the library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def renamed(library: bytes, old: str) -> bytes:
    """The library with its own name replaced, in place: the usual one is shorter."""
    new = NAME.encode().ljust(len(old), b"\0")
    return library.replace(old.encode() + b"\0", new + b"\0")


def provide() -> None:
    """Puts copy and loader into this environment."""
    carried = next(iter((SITE / "scikit_learn.libs").glob("libgomp-*.so.*")), None)
    if carried is None:
        sys.exit(f"LightGBM needs {NAME}, and it is nowhere: install it (Debian: libgomp1)")
    COPY.parent.mkdir(exist_ok=True)
    COPY.write_bytes(renamed(carried.read_bytes(), carried.name))
    LOADER.write_text(f"import ctypes; ctypes.CDLL({str(COPY)!r}, mode=ctypes.RTLD_GLOBAL)\n")


if __name__ == "__main__":
    if sys.platform == "linux" and not COPY.exists() and not is_loadable(NAME):
        provide()
