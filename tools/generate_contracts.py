"""Turns proto/ into the generated contracts of sdk/homeostat (what `make proto` runs)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "proto"


def generate(target: Path) -> None:
    """Writes every *_pb2 module, stub and gRPC module below ``target``."""
    protos = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    bin_folder = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{SOURCES}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=quiet:{target}",
            *protos,
        ],
        check=True,
    )
    for path in target.rglob("*_pb2_grpc.py*"):
        if not _has_service(path, target):
            path.unlink()
    for folder in {path.parent for path in target.rglob("*_pb2.py")}:
        for package in (folder, *folder.parents):
            if package == target / "homeostat":
                break
            init = package / "__init__.py"
            if not init.exists():
                init.write_text("")


def _has_service(grpc_module: Path, target: Path) -> bool:
    stem = grpc_module.name.split("_pb2_grpc")[0]
    proto = SOURCES / grpc_module.parent.relative_to(target) / f"{stem}.proto"
    return "\nservice " in proto.read_text()


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "sdk"
    for stale in target.glob("homeostat/**/*_pb2*"):
        stale.unlink()
    generate(target)


if __name__ == "__main__":
    main()
