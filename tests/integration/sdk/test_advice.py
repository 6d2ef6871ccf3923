"""`homeostat advise` against a real registry and ledger, and what it registers."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.wide_models import Network, a_network, as_push
from tests.support.world import MODEL_NAME, a_world, first_push

from homeostat import reference
from homeostat.advise import applying, sources
from homeostat.advise.equivalence import Equality, Tolerance
from homeostat.advise.figures import Outcome, Timing
from homeostat.advise.forms import PRESENT, Form, Variant
from homeostat.advise.machine import Machine
from homeostat.advise.making import make
from homeostat.advise.report import Report
from homeostat.advise.subject import Rows
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.model_file import ModelFile
from homeostat.push import Push, prepare, send
from homeostat.registry.v1.registry_pb2 import (
    AUTONOMY_APPROVE,
    STAGE_AWAITS_APPROVAL,
    STAGE_CHAMPION,
    STAGE_REJECTED,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat_local.stack import Stack, running_stack

pytestmark = pytest.mark.timeout(180)

HOMEOSTAT = Path(sys.executable).parent / "homeostat"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("advice")
    with running_stack(folder, services=("registry", "ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def network() -> Network:
    return a_network(hidden=256, rows=1500)


def pushed(stack: Stack, push: Push) -> None:
    asyncio.run(
        send(
            prepare(push),
            registry_address=stack.addresses["registry"],
            ledger_address=stack.addresses["ledger"],
        )
    )


def advised(stack: Stack, *arguments: str, code: int | None = 0) -> str:
    done = subprocess.run(
        [HOMEOSTAT, "advise", *arguments, "--folder", stack.folder],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "COLUMNS": "250"},
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["variant"]["name"]: each for each in report["outcomes"]}


async def fetched(stack: Stack, name: str, rows: int = 1500) -> tuple[sources.Champion, Rows]:
    addresses = stack.addresses
    async with (
        grpc.aio.insecure_channel(addresses["registry"]) as registry,
        grpc.aio.insecure_channel(addresses["ledger"]) as ledger,
    ):
        champion = await sources.champion_of(RegistryServiceStub(registry), name)
        return champion, await sources.rows_for(LedgerServiceStub(ledger), champion, rows)


async def applied(
    stack: Stack, champion: sources.Champion, report: Report, content: bytes
) -> Version:
    async with grpc.aio.insecure_channel(stack.addresses["registry"]) as channel:
        return await applying.apply(
            RegistryServiceStub(channel),
            report,
            champion,
            applying.require_fit(report, Form.INT8_STATIC),
            content,
            author="ann",
        )


def made(
    champion: sources.Champion, rows: Rows, folder: Path, form: Form = Form.INT8_STATIC
) -> bytes:
    target = folder / "made.onnx"
    make(form, champion.subject.content, rows.calibration, target)
    return target.read_bytes()


def a_report(champion: sources.Champion, rows: Rows, **equality: Any) -> Report:
    """As if it had been measured: twice as fast, all rows equal."""
    said = {"row_count": rows.count, "equal_count": rows.count, "max_score_difference": 0.001}
    return Report(
        champion.subject.model_name,
        champion.version.version,
        champion.subject.sha256,
        Machine("a processor", 2, 1, {}),
        rows.source,
        rows.count,
        rows.calibration_count,
        rows.sha256,
        Tolerance(),
        16,
        "as told",
        0.04,
        5,
        [
            Outcome(PRESENT, timings=[Timing(16, 2e-6, 2e-6, 1.0, 1.0)]),
            Outcome(
                Variant(Form.INT8_STATIC, "", form=Form.INT8_STATIC),
                equality=Equality(**{**said, **equality}, value_tolerance=0.0),
                timings=[Timing(16, 1e-6, 1e-6, 2.0, 1.9)],
            ),
        ],
    )


def test_a_network_is_measured_on_the_ledgers_rows(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="measured"))
    said = advised(
        stack, "measured", "--seconds", "1", "--json", str(tmp_path / "advice.json"),
        "--html", str(tmp_path / "advice.html"),
    )  # fmt: skip
    report = json.loads((tmp_path / "advice.json").read_text())
    found = by_name(report)
    assert report["version"] == 1
    assert report["rows_source"] == "the ledger's newest rows of measured"
    assert report["row_count"] + report["calibration_count"] == 1500
    assert {each["rows"] for each in found["present"]["timings"]} == {1, 8, 16, 64, 256, 512}
    assert found["int8-static"]["equality"]["share"] == 1.0
    assert found["int8-static"]["artifact_bytes"] < found["present"]["artifact_bytes"] / 3
    assert found["int8-static"]["timings"]
    assert "no tree ensemble" in found["compiled"]["failure"]
    assert not found["compiled"]["can_be_applied"]
    assert report["advice"]
    assert " ".join(report["advice"])[:40] in " ".join(said.split())
    page = (tmp_path / "advice.html").read_text()
    assert "int8-static" in page
    assert "http://" not in page.split("<script")[0]


def test_what_is_said_to_be_fit_is_what_apply_takes(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="applied"))
    said = advised(
        stack, "applied", "--seconds", "1", "--at", "512", "--json", str(tmp_path / "advice.json"),
        "--apply", "int8-static", code=None,
    )  # fmt: skip
    static = by_name(json.loads((tmp_path / "advice.json").read_text()))["int8-static"]
    if static["can_be_applied"]:
        assert "applied version 2 is champion" in said
        assert "homeostat rollback applied" in said
    else:
        assert "int8-static was not registered" in said


def test_another_form_is_promoted_with_its_parents_signature_and_a_profile_of_its_own(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="promoted"))
    champion, rows = asyncio.run(fetched(stack, "promoted"))
    content = made(champion, rows, tmp_path)
    version = asyncio.run(applied(stack, champion, a_report(champion, rows), content))
    assert version.stage == STAGE_CHAMPION, version.reasons
    assert version.signature == champion.version.signature
    assert version.lineage.parent_version == 1
    assert version.lineage.recipe == champion.version.lineage.recipe
    assert version.lineage.cause == "int8 quantisation (calibrated) of version 1"
    assert version.equivalence.rows_sha256 == rows.sha256
    assert version.equivalence.speed_up == 2.0
    after, _ = asyncio.run(fetched(stack, "promoted"))
    profile = reference.read(after.profile)
    assert profile.num_rows == reference.read(champion.profile).num_rows
    scores = ModelFile(content).scores(
        profile.select(network.table.column_names), version.signature
    )
    assert np.allclose(profile[reference.SCORE].to_numpy(), scores[:, 1])


@pytest.mark.parametrize("form", [Form.INT8_STATIC, Form.INT8_BY_ROW, Form.FLOAT16])
def test_every_form_that_is_offered_passes_the_registrys_judge(
    form: Form, stack: Stack, network: Network, tmp_path: Path
) -> None:
    name = f"judged-{form}"
    pushed(stack, as_push(network, tmp_path, name=name))
    champion, rows = asyncio.run(fetched(stack, name))
    content = made(champion, rows, tmp_path, form)
    version = asyncio.run(applied(stack, champion, a_report(champion, rows), content))
    assert version.stage == STAGE_CHAMPION, version.reasons


def test_a_form_whose_rows_depend_on_one_another_is_refused_by_the_judge(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="dynamic"))
    champion, rows = asyncio.run(fetched(stack, "dynamic"))
    content = made(champion, rows, tmp_path, Form.INT8_DYNAMIC)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        asyncio.run(applied(stack, champion, a_report(champion, rows), content))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "alone and among others" in str(refused.value.details())


def test_a_form_of_yesterdays_champion_is_rejected(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="stale"))
    champion, rows = asyncio.run(fetched(stack, "stale"))
    content = made(champion, rows, tmp_path)
    asyncio.run(applied(stack, champion, a_report(champion, rows), content))
    other = made(champion, rows, tmp_path, Form.FLOAT16)
    version = asyncio.run(applied(stack, champion, a_report(champion, rows), other))
    assert version.stage == STAGE_REJECTED
    assert any("champion" in each for each in version.reasons), version.reasons


def test_where_a_person_has_the_last_word_it_awaits_it(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="careful", autonomy=AUTONOMY_APPROVE))
    champion, rows = asyncio.run(fetched(stack, "careful"))
    content = made(champion, rows, tmp_path)
    version = asyncio.run(applied(stack, champion, a_report(champion, rows), content))
    assert version.stage == STAGE_AWAITS_APPROVAL, version.reasons


def test_too_few_rows_are_told_before_anything_is_sent(
    stack: Stack, network: Network, tmp_path: Path
) -> None:
    pushed(stack, as_push(network, tmp_path, name="few"))
    champion, rows = asyncio.run(fetched(stack, "few", rows=100))
    report = a_report(champion, rows)
    with pytest.raises(applying.NotApplied, match="asks for 500 rows and there are only 80"):
        applying.require_fit(report, Form.INT8_STATIC)


@pytest.mark.slow
def test_trees_with_texts_and_nulls_are_measured(stack: Stack, tmp_path: Path) -> None:
    world = a_world(history_days=10, days=1, rows_per_day=100)
    pushed(stack, first_push(world, tmp_path))
    advised(stack, MODEL_NAME, "--seconds", "1", "--json", str(tmp_path / "advice.json"))
    report = json.loads((tmp_path / "advice.json").read_text())
    found = by_name(report)
    assert found["present"]["timings"]
    assert "no matrix product" in found["int8-static"]["failure"]
    compiled = found["compiled"]
    assert compiled["failure"] == "" or "compiler" in compiled["failure"]
    if not compiled["failure"]:
        assert compiled["equality"]["share"] == 1.0
        assert compiled["why_not_applied"] == (
            "compiled trees are no ONNX file; they are reported only"
        )


def test_an_unknown_model_is_one_line(stack: Stack) -> None:
    said = advised(stack, "nobody", code=1)
    assert said.startswith("error ")
    assert "nobody" in said
    assert "Traceback" not in said
