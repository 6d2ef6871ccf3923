"""The stack with tokens and mTLS on: services find each other, and so do those who may."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.test_docs import QUICKSTART
from tests.support.certificates import Pair, an_authority

from homeostat.tokens import Role, add_token
from homeostat_local import control

BIN = Path(sys.executable).parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def command(folder: Path, environment: dict[str, str]) -> Run:
    def run(*words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment}
            | more,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    return run


def settings_of(tokens_file: Path, peer_token: str, authority: Path, own: Pair) -> list[str]:
    given = {
        "TOKENS_FILE": tokens_file,
        "PEER_TOKEN": peer_token,
        "TLS_CERTIFICATE_FILE": own.certificate,
        "TLS_KEY_FILE": own.key,
        "TLS_CLIENT_CA_FILE": authority,
        "PEER_CA_FILE": authority,
        "PEER_CERTIFICATE_FILE": own.certificate,
        "PEER_KEY_FILE": own.key,
        "INFERENCE_TRANSPORT": "grpcio",
    }
    return [word for name, value in given.items() for word in ("--set", f"{name}={value}")]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_with_tokens_and_mtls_the_quick_start_works_for_who_may(tmp_path: Path) -> None:
    authority = an_authority(tmp_path)
    own, mine = authority.signs("services"), authority.signs("me")
    tokens_file = tmp_path / "tokens.json"
    peer_token = add_token(tokens_file, "services", [Role.READ, Role.MANAGE])
    alice = add_token(tokens_file, "alice", [Role.READ, Role.MANAGE])
    app = add_token(tokens_file, "app", [Role.PREDICT])
    for script in QUICKSTART.glob("*.py"):
        (tmp_path / script.name).write_bytes(script.read_bytes())
    run = command(
        tmp_path,
        {
            "HOMEOSTAT_TLS_CA_FILE": str(authority.certificate),
            "HOMEOSTAT_TLS_CERTIFICATE_FILE": str(mine.certificate),
            "HOMEOSTAT_TLS_KEY_FILE": str(mine.key),
        },
    )
    try:
        assert run("python", "train.py").returncode == 0
        settings = settings_of(tokens_file, peer_token, authority.certificate, own)
        started = run("homeostat", "up", *settings)
        assert started.returncode == 0, started.stderr
        refused = run("homeostat", "models")
        assert refused.returncode == 1 and "HOMEOSTAT_TOKEN" in refused.stderr
        refused = run("homeostat", "models", HOMEOSTAT_TOKEN=app)
        assert refused.returncode == 1 and "'read'" in refused.stderr
        push = (
            *("homeostat", "push", "tumours.onnx", "--history", "history.parquet"),
            *("--truth", "diagnosis", "--time", "examined", "--known-at", "diagnosed"),
        )
        pushed = run(*push, HOMEOSTAT_TOKEN=alice)
        assert pushed.returncode == 0, pushed.stderr
        predicted = run("python", "predict.py", HOMEOSTAT_TOKEN=app)
        assert predicted.returncode == 0, predicted.stderr
        assert "told the truth of 2 patients" in predicted.stdout
        audit = run("homeostat", "audit", "list", HOMEOSTAT_TOKEN=alice)
        assert "alice" in audit.stdout, audit.stderr
    finally:
        control.stop(tmp_path / ".homeostat")
