"""Every command that the README shows is run, in the order in which it shows them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
BIN = Path(sys.executable).parent


def shell_blocks(page: Path) -> list[list[str]]:
    """The commands of each ```sh block, comments cut off."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [
        [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
        for block in blocks
    ]


def run(command: str, folder: Path, *, seconds: float = 180) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def users_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the quick start's scripts; whatever runs in it is stopped."""
    for script in QUICKSTART.glob("*.py"):
        shutil.copy(script, tmp_path)
    yield tmp_path
    subprocess.run(
        [BIN / "homeostat", "down"], cwd=tmp_path, capture_output=True, timeout=180, check=False
    )


def test_the_readme_shows_the_two_commands_first() -> None:
    assert shell_blocks(ROOT / "README.md")[0] == ["make demo", "make test"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_quick_start_of_the_readme_works(users_folder: Path) -> None:
    said = {command: run(command, users_folder) for command in shell_blocks(ROOT / "README.md")[1]}
    told = "\n".join(said.values())
    assert "wrote tumours.onnx and history.parquet" in told
    assert "pushed tumours version 1 (champion)" in told
    assert "patient-1: benign" in told
    assert "patient-2: malignant" in told
    assert "told the truth of 2 patients" in told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_page_on_cheaper_models_works(users_folder: Path) -> None:
    page = ROOT / "docs" / "how-to" / "make-a-model-cheaper.md"
    commands = [command for block in shell_blocks(page) for command in block]
    said = {command: run(command, users_folder) for command in commands}
    assert any(command.startswith("homeostat advise tumours") for command in commands)
    assert "CPU microseconds per row, by rows at once" in "\n".join(said.values())
    report = json.loads((users_folder / "advice.json").read_text())
    assert report["model_name"] == "tumours"
    assert report["advice"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_page_on_predicting_over_http_works(users_folder: Path) -> None:
    page, port = ROOT / "docs" / "how-to" / "predict.md", str(free_port())
    commands = [each.replace("8080", port) for each in shell_blocks(page)[0]]
    *_, metadata, answer, told, statistics = [run(each, users_folder) for each in commands]
    assert json.loads(metadata)["inputs"][0]["name"] == "mean_radius"
    assert json.loads(answer)["id"] == "patient-1"
    assert json.loads(answer)["outputs"][1]["data"][0] > 0.5
    assert json.loads(told)["recorded_count"] == 1
    assert json.loads(statistics)["model_stats"][0]["inference_count"] == 1


def test_the_page_on_securing_works(tmp_path: Path) -> None:
    page = ROOT / "docs" / "how-to" / "secure-the-server.md"
    *tokens, listed = [run(each, tmp_path) for each in shell_blocks(page)[0]]
    assert len({each.strip() for each in tokens}) == 3
    assert all(name in listed for name in ("app", "dashboard", "alice"))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_traffic_is_shared_out_as_the_page_says(users_folder: Path) -> None:
    page = ROOT / "docs" / "how-to" / "route-traffic.md"
    commands = [command for block in shell_blocks(page) for command in block]
    said = {command: run(command, users_folder) for command in commands}
    told = "\n".join(said.values())
    assert "champion 1 (1), shadow 2" in told
    assert "champion 1 (0.9), canary 2 (0.1)" in told
    assert "tumours: fallback version 2 answers; every worker follows" in told
    assert "tumours: champion version 1 answers; every worker follows" in told
    assert "at most 64 rows, waits up to 2 ms, preferred: 8, 64 rows" in told


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_demo_of_one_month_keeps_its_promises(tmp_path: Path) -> None:
    said = run("homeostat demo flights --months 1 --json figures.json", tmp_path, seconds=480)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["predictions"] == found["outcomes_sent"] == found["outcomes_joined"] == 24_951
    assert found["checksum_joined"] == found["checksum_sent"]
    assert found["failed_requests"] == 0
    assert "no human step" in said
    incident = found["incident"]
    assert incident["is_told"]
    assert (incident["feature"], incident["cause"]) == ("temp", "data_break")
    assert incident["since"] == incident["from"] == "2013-02-12"
    assert "degrees Fahrenheit sent as Celsius" in incident["advice"]
    assert incident["runs_meanwhile"] == 0
    report = (tmp_path / "flights-report.html").read_text()
    report = re.sub(r"<script.*?</script>", "", report, flags=re.DOTALL)
    assert not re.search(r'(src|href)="https?://', report)


def follow(page: Path, folder: Path) -> str:
    """Does what a page says, in its order: writes its policies down, runs its commands."""
    said = []
    blocks = re.findall(r"^```(sh|toml)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for kind, text in blocks:
        if kind == "toml":
            (folder / "policy.toml").write_text(text)
            continue
        commands = [line.split("  #")[0].strip() for line in text.splitlines() if line.strip()]
        said += [run(each, folder) for each in commands]
    return "\n".join(said)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_pages_on_alerts_work(users_folder: Path) -> None:
    how_to = ROOT / "docs" / "how-to"
    said = follow(how_to / "read-a-diagnosis.md", users_folder)
    assert "an hour later, an alert: temperature" in said
    assert "retraining runs of greenhouse: none" in said
    alerts = json.loads(run("homeostat alerts list greenhouse --json", users_folder))
    outside = next(each for each in alerts if each["rule"] == "ALERT_RULE_OUT_OF_RANGE")
    diagnosed = run(f"homeostat alerts show {outside['alert_id']}", users_folder)
    assert "since 2026-03-03 00:00:00" in diagnosed
    assert "probable cause: data break" in diagnosed
    assert "degrees Fahrenheit sent as Celsius" in diagnosed
    assert "1. fix upstream" in diagnosed

    said = follow(how_to / "watch-a-segment.md", users_folder)
    assert "greenhouse: policy revision 1" in said
    assert 'context.house == "annex"' in said
    assert "would have fired" in said
    assert "estimated loss" in follow(how_to / "see-drift-without-labels.md", users_folder)
    assert "greenhouse: policy revision 2" in follow(how_to / "set-a-policy.md", users_folder)

    *_, pushed = shell_blocks(how_to / "make-a-model-cheaper.md")[0][:3]
    run("python train.py", users_folder)
    run(pushed, users_folder)
    said = follow(how_to / "get-alerts-by-webhook.md", users_folder)
    assert "policy.toml: a policy that tumours can have" in said
    assert "tumours: policy revision 1" in said
    assert 'secret_name = "pager"' in said
    assert "notifications of tumours: none" in said
    assert "the road is closed" in said
