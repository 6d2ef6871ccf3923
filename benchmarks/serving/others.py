"""The peers, each set up as its own documentation says for a small CPU model, and kindly.

- mlserver: a runtime class on onnxruntime; in its own process, or with one parallel worker.
- kserve: a `Model` on onnxruntime in its `ModelServer`, its gRPC server.
- Triton's server with its Python backend: two instances of each model (one per core of the machine
  that these figures are for); with dynamic batching, which runs all waiting requests at once, and
  without.

Each has one onnxruntime thread per session, as ours has, and no logging of requests.
"""

import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.install import FOLDER, python_of, site_packages
from benchmarks.serving.models import BenchModel, one_request
from benchmarks.serving.processes import Running, start, wait_until_answering

from homeostat_local.ports import choose_port

_CODE = Path(__file__).parent / "peers"
_CONFIG = """backend: "python"
max_batch_size: 256
input [{{ name: "input" data_type: TYPE_FP32 dims: [{width}] }}]
output [
  {{ name: "label" data_type: TYPE_INT64 dims: [1] reshape: {{ shape: [] }} }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [2] }}
]
instance_group [{{ count: {instances} kind: KIND_CPU }}]
{batching}"""

Models = Mapping[str, BenchModel]


@dataclass(frozen=True, slots=True)
class Peer:
    """How one is started in a folder of its own, on a port."""

    environment: str
    start: Callable[[str, Models, Path, int], Running]


def _mlserver(workers: int) -> Callable[[str, Models, Path, int], Running]:
    def begin(name: str, models: Models, folder: Path, port: int) -> Running:
        settings = {
            "debug": False,
            "parallel_workers": workers,
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": choose_port(0, taken={port}),
            "metrics_endpoint": None,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        for each in models.values():
            place = folder / each.name
            place.mkdir()
            (place / "model.onnx").write_bytes(each.content)
            about = {
                "name": each.name,
                "implementation": "mlserver_model.OnnxModel",
                "parameters": {"uri": str(place / "model.onnx")},
            }
            (place / "model-settings.json").write_text(json.dumps(about))
        command = [str(python_of("mlserver").parent / "mlserver"), "start", str(folder)]
        return start(name, command, port=port, log=folder / "log", environment=_path_of(_CODE))

    return begin


def _kserve(name: str, models: Models, folder: Path, port: int) -> Running:
    given = []
    for each in models.values():
        file = folder / f"{each.name}.onnx"
        file.write_bytes(each.content)
        given.append(f"{each.name}={file}")
    http_port = choose_port(0, taken={port})
    command = [str(python_of("kserve")), str(_CODE / "kserve_server.py")]
    command += [str(port), str(http_port), *given]
    return start(name, command, port=port, log=folder / "log", environment={})


def _triton(batching: str, instances: int) -> Callable[[str, Models, Path, int], Running]:
    def begin(name: str, models: Models, folder: Path, port: int) -> Running:
        packages = site_packages("triton")
        parts = packages / "pytriton" / "tritonserver"
        backend = _triton_backend(folder, parts)
        for each in models.values():
            place = folder / "models" / each.name
            (place / "1").mkdir(parents=True)
            (place / "1" / "model.onnx").write_bytes(each.content)
            (place / "1" / "model.py").write_text(_triton_code(packages))
            about = _CONFIG.format(width=each.width, instances=instances, batching=batching)
            (place / "config.pbtxt").write_text(about)
        command = [str(parts / "bin" / "tritonserver")]
        command += [f"--model-repository={folder / 'models'}", f"--backend-directory={backend}"]
        command += ["--allow-metrics=false", "--allow-http=false", "--grpc-address=127.0.0.1"]
        command += [f"--grpc-port={port}", "--log-verbose=0"]
        libraries = [str(packages.parent / packages.name / "nvidia_pytriton.libs")]
        libraries.append(str(sysconfig.get_config_var("LIBDIR")))
        environment = {
            **_path_of(packages),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            "PYTHONHOME": sys.base_prefix,
        }
        return start(name, command, port=port, log=folder / "log", environment=environment)

    return begin


def _triton_code(packages: Path) -> str:
    """The model's code; its process looks for packages nowhere by itself."""
    code = (_CODE / "triton_model.py").read_text()
    return f"import sys\n\nsys.path.insert(0, {str(packages)!r})\n{code}"


def _triton_backend(folder: Path, parts: Path) -> Path:
    """The Python backend beside the stub of this Python's version, as the server wants it."""
    place = folder / "backends" / "python"
    place.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = parts / "python_backend_stubs" / version / "triton_python_backend_stub"
    for file in (*(parts / "backends" / "python").glob("*.*"), stub):
        (place / file.name).write_bytes(file.read_bytes())
        (place / file.name).chmod(0o755)
    return place.parent


def _path_of(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(folder)}


PEERS: dict[str, Peer] = {
    "mlserver": Peer("mlserver", _mlserver(0)),
    "mlserver-worker": Peer("mlserver", _mlserver(1)),
    "kserve": Peer("kserve", _kserve),
    "triton": Peer("triton", _triton("", 2)),
    "triton-batching": Peer("triton", _triton("dynamic_batching { }\n", 2)),
}


@contextmanager
def a_peer(name: str, models: Models) -> Iterator[Running]:
    """Runs it while the block runs; NotStarted with its log if it does not come up."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="homeostat-peer-") as folder:
        running = PEERS[name].start(name, models, Path(folder), choose_port(0))
        try:
            requests = [one_request(each, 0, 1, has_ids=True) for each in models.values()]
            wait_until_answering(running, requests)
            yield running
        finally:
            running.stop()
