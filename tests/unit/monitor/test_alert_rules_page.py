"""The page on alert rules names all that the contract has, and only what is measured."""

import re
from pathlib import Path

from homeostat.events.v1 import alert_pb2 as pb
from homeostat_monitor.domain.detection.budget import LEDGER
from homeostat_monitor.domain.judges import Rule
from homeostat_retrainer.messages import is_heard

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "alert-rules.md").read_text()
MONITOR = ROOT / "services" / "monitor" / "homeostat_monitor"


def rows() -> dict[str, list[str]]:
    """Cells of the tables' rows about a rule, by its name."""
    found = re.findall(r"^\| `([a-z_]+)` \|(.*)\|$", PAGE, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


def names(values: list[str], prefix: str) -> set[str]:
    return {each.removeprefix(prefix) for each in values if not each.endswith("_UNSPECIFIED")}


def test_every_rule_has_a_row_and_no_other() -> None:
    contract = {each.lower() for each in names(pb.AlertRule.keys(), "ALERT_RULE_")}
    assert set(rows()) == contract == set(Rule)


def test_every_other_word_of_the_contract_is_there() -> None:
    words = names(pb.AlertState.keys(), "ALERT_STATE_") | names(
        pb.CauseClass.keys(), "CAUSE_CLASS_"
    )
    words |= names(pb.Severity.keys(), "SEVERITY_") | names(pb.Resolution.keys(), "RESOLUTION_")
    words |= names(pb.StepKind.keys(), "STEP_KIND_")
    assert {each for each in words if not re.search(rf"\b{each}\b", PAGE)} == set()


def test_statistics_are_those_that_judges_measure() -> None:
    source = "\n".join(each.read_text() for each in MONITOR.rglob("*.py"))
    told = re.findall(
        r"`([a-z]+(?:_[a-z]+)+)(?:\.\.\.)?`", " ".join(each[1] for each in rows().values())
    )
    statistics = {each for each in told if each not in set(Rule)}
    assert len(statistics) >= 15
    assert {each for each in statistics if f'"{each}"' not in source} == set()


def test_a_risen_loss_alone_asks_for_a_retraining() -> None:
    retrains = {name for name, (*_, last) in rows().items() if not last.startswith("no")}
    assert retrains == {"performance"}
    ignored = {name for name in rows() if not is_heard(pb.Alert(rule=_value(name)))}
    assert {"concept", "estimated_performance", "policy"} <= ignored


def _value(name: str) -> pb.AlertRule:
    return pb.AlertRule.Value(f"ALERT_RULE_{name.upper()}")


def test_the_explanation_tells_the_budget_as_it_is_spent() -> None:
    page = (ROOT / "docs" / "explanation" / "alarms-you-can-trust.md").read_text()
    told = re.findall(r"^\| ([a-z ]+) \| (\d+) % \| (yes|no) \|", page, re.MULTILINE)
    ledger = [
        (part.value, str(round(100 * line.share)), "yes" if line.has_segments else "no")
        for part, line in LEDGER.items()
    ]
    assert sorted(told) == sorted(ledger)
