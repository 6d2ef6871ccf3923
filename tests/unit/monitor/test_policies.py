"""Policies: checked as a whole, kept whole, and thresholds that remember."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from homeostat import policy_files
from homeostat.monitor.v1 import policy_pb2 as pb
from homeostat_monitor.domain.alerts.alert import Severity
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.policies.checks import BadPolicy, Known, problems_of
from homeostat_monitor.domain.policies.figures import of_window, rows_needed
from homeostat_monitor.domain.policies.policy import (
    DEFAULT,
    Comparison,
    Policy,
    PolicyRule,
    Segment,
    Webhook,
)
from homeostat_monitor.domain.policies.rules import Measured, PolicyWatch, policy_findings
from homeostat_monitor.domain.windows.bins import NumberColumn, bins_of
from homeostat_monitor.domain.windows.layout import Layout, layout_of
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.messages.policies import policy_message, policy_of

ROOT = Path(__file__).parents[3]
KNOWN = Known(
    features=frozenset({"carrier", "wind_speed"}),
    hosts=AllowedHosts.parse("127.0.0.1,hooks.example.com,*.example.org"),
)


def a_policy(**changes: object) -> Policy:
    whole = Policy(
        model_name="delays",
        false_alarms_per_month=2.0,
        disabled_rules=frozenset({Rule.DUPLICATES, Rule.STUCK}),
        segments=(Segment("evening", 'carrier == "EV" and wind_speed >= 20'),),
        rules=(a_rule(),),
        webhooks=(
            Webhook(
                "pager", "https://hooks.example.com/a", "pager", Severity.CRITICAL, ("evening",)
            ),
        ),
        mode=Mode.TIME_ORDERED,
        ignored_features=("wind_speed",),
        throttle_seconds=3600.0,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def a_rule(**changes: object) -> PolicyRule:
    rule = PolicyRule("worse", "loss", Comparison.RELATIVE_ABOVE, 0.1, 0.2, segment="evening")
    return replace(rule, **changes)  # type: ignore[arg-type]


def problems(policy: Policy) -> list[str]:
    return [str(each) for each in problems_of(policy, KNOWN)]


def test_a_policy_that_uses_everything_is_valid() -> None:
    assert problems(a_policy()) == []
    assert problems(DEFAULT.of("delays")) == []


def test_a_policy_comes_back_the_same_from_the_database_and_over_the_wire() -> None:
    policy = a_policy(revision=3, set_by="ann", set_at_us=5)
    assert Policy.from_json(policy.to_json()) == policy
    again = policy_of(policy_message(policy))
    assert replace(again, revision=3, set_by="ann", set_at_us=5) == policy


def test_what_is_not_set_has_its_default() -> None:
    assert policy_of(pb.Policy(model_name="delays")) == DEFAULT.of("delays")


def test_a_stored_policy_that_is_none_is_refused() -> None:
    for text in ("", "{}", '{"model_name": 1}', "[]", DEFAULT.to_json()[:-2]):
        with pytest.raises(CorruptState):
            Policy.from_json(text)
        instead = Policy.stored("delays", 7, text)
        assert replace(instead, revision=0, fault="") == DEFAULT.of("delays")
        assert instead.revision == 7
        assert "set the policy anew" in instead.fault
    assert Policy.stored("delays", 7, a_policy().to_json()) == a_policy()


def test_every_problem_is_named_at_once_with_its_place_and_its_cure() -> None:
    rule = a_rule(metric="acuracy", segment="evenning", warning=0.3, windows=0)
    policy = a_policy(
        false_alarms_per_month=0.0,
        segments=(Segment("evening", "carrier = 3"), Segment("evening", "wind_speed > 3")),
        rules=(rule, a_rule(name="nulls", metric="null_rate", feature="wind_sped", segment="")),
        ignored_features=("carier",),
    )
    said = problems(policy)
    assert [each.partition(": ")[0] for each in said] == [
        "false_alarms_per_month",
        "segments[1].name",
        "segments[0].expression",
        "rules[0].metric",
        "rules[0].segment",
        "rules[0].critical",
        "rules[0].windows",
        "rules[1].feature",
        "ignored_features[0]",
    ]
    text = "\n".join(said)
    assert "did you mean 'accuracy'?" in text
    assert "did you mean 'evening'?" in text
    assert "did you mean 'wind_speed'?" in text
    assert "did you mean 'carrier'?" in text
    assert "the wrong way round" in text


def test_an_expression_over_a_column_that_is_none_is_refused_with_the_nearest() -> None:
    [problem] = problems(a_policy(segments=(Segment("evening", "wind_sped > 3"),)))
    assert "wind_speed" in problem
    assert problems(a_policy(segments=(Segment("evening", 'context.origin == "JFK"'),))) == []


def test_thresholds_that_fall_stand_the_other_way_round() -> None:
    below = a_rule(
        metric="accuracy", segment="", comparison=Comparison.BELOW, warning=0.8, critical=0.7
    )
    assert problems(a_policy(rules=(below,))) == []
    [problem] = problems(a_policy(rules=(replace(below, critical=0.9),)))
    assert problem.startswith("rules[0].critical")


@pytest.mark.parametrize(
    "changes",
    [
        {"warning": None, "critical": None},
        {"comparison": None},
        {"warning": math.nan},
        {"metric": "null_rate"},
        {"feature": "carrier"},
        {"name": "a b"},
        {"least_rows": -1},
        {"metric": "auc"},
        {"metric": "arrival_rate"},
    ],
)
def test_a_rule_that_says_nothing_is_refused(changes: dict[str, object]) -> None:
    assert len(problems(a_policy(rules=(a_rule(**changes),)))) == 1


def test_more_than_a_person_looks_after_is_refused() -> None:
    rules = tuple(a_rule(name=f"r{each}") for each in range(101))
    assert problems(a_policy(rules=rules)) == ["rules: 101 are more than 100; cure: leave some out"]


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example.com/a",
        "https://other.example.com/a",
        "http://hooks.example.com/a",
        "https://user:word@hooks.example.com/a",
        "https://example.org/a",
        "https://hooks.example.com\\@evil.example/a",
        "https://",
        "https://hooks.example.com:70000/",
    ],
)
def test_a_url_that_the_operator_does_not_allow_is_refused(url: str) -> None:
    webhook = Webhook("pager", url, "pager")
    [problem] = problems(a_policy(webhooks=(webhook,)))
    assert problem.startswith("webhooks[0].url: ")
    assert "cure: " in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/a", "https://a.example.org/b?c=d"])
def test_a_url_that_the_operator_allows_is_taken(url: str) -> None:
    assert problems(a_policy(webhooks=(Webhook("pager", url, "pager"),))) == []


@pytest.mark.parametrize("name", ["../etc/passwd", "", ".hidden", "a/b"])
def test_a_secret_is_the_name_of_a_file_and_no_path(name: str) -> None:
    webhook = Webhook("pager", "https://hooks.example.com/a", name)
    [problem] = problems(a_policy(webhooks=(webhook,)))
    assert problem.startswith("webhooks[0].secret_name")


def test_enums_of_another_contract_are_refused() -> None:
    message = policy_message(a_policy())
    message.rules[0].comparison = 99  # type: ignore[assignment]
    message.disabled_rules.append(77)  # type: ignore[arg-type]
    with pytest.raises(BadPolicy) as caught:
        policy_of(message)
    assert len(caught.value.problems) == 2


def measured(value: float, *, rows: int = 100) -> Measured:
    return Measured("loss", value, 0.5, rows, segment="evening")


def test_a_relative_threshold_is_held_against_the_reference() -> None:
    for value, is_breach, is_critical in (
        (0.54, False, False),
        (0.56, True, False),
        (0.61, True, True),
    ):
        [finding] = policy_findings(a_policy(), [measured(value)])
        assert (finding.is_breach, finding.is_critical) == (is_breach, is_critical)
        assert finding.policy_rule == "worse"
        assert finding.rule is Rule.POLICY
        assert finding.segment == "evening"
    assert finding.threshold == pytest.approx(0.6)


def test_a_rule_of_three_windows_breaks_at_the_third_in_a_row() -> None:
    watch = PolicyWatch(a_policy(rules=(a_rule(windows=3),)))
    values = [0.56, 0.56, 0.5, 0.56, 0.56, 0.56, 0.7]
    breaches = [watch.feed([measured(each)])[0].is_breach for each in values]
    assert breaches == [False, False, False, False, False, True, True]


def test_what_cannot_be_judged_neither_counts_nor_calms() -> None:
    watch = PolicyWatch(a_policy(rules=(a_rule(windows=2),)))
    assert not watch.feed([measured(0.6)])[0].is_breach
    for what in ([measured(9.0, rows=24)], [measured(math.nan)], []):
        assert not watch.feed(what)[0].is_breach
        assert watch.feed(what)[0].observed == 0.6
    assert watch.feed([measured(0.6)])[0].is_breach


def test_the_counts_come_back_bit_for_bit_and_not_for_a_changed_rule() -> None:
    policy = a_policy(rules=(a_rule(windows=2),))
    watch = PolicyWatch(policy)
    watch.feed([measured(0.6)])
    state = watch.to_bytes()
    again = PolicyWatch(policy)
    again.restore(state)
    assert again.to_bytes() == state
    assert again.feed([measured(0.6)])[0].is_breach
    other = PolicyWatch(a_policy(rules=(a_rule(windows=2, warning=0.05),)))
    other.restore(state)
    assert not other.feed([measured(0.6)])[0].is_breach


def test_a_rule_stands_as_it_stood_while_others_are_measured() -> None:
    rules = (a_rule(), a_rule(name="delay", metric="label_delay_seconds"))
    watch = PolicyWatch(a_policy(rules=rules))
    assert [each.policy_rule for each in watch.feed([measured(0.6)])] == ["worse"]
    delay = Measured("label_delay_seconds", 5.0, 5.0, 100, segment="evening")
    assert [each.is_breach for each in watch.feed([delay])] == [True, False]


def test_a_watch_of_one_segment_has_its_rules_alone() -> None:
    rules = (a_rule(), a_rule(name="whole", segment=""))
    watch = PolicyWatch(a_policy(rules=rules), "")
    assert watch.feed([measured(0.9)]) == []


def test_windows_with_too_few_rows_are_taken_together() -> None:
    policy = a_policy(rules=(a_rule(least_rows=30),))
    watch = PolicyWatch(policy)
    windows = [Window(at, at + 1, np.array([12, at + 1])) for at in range(6)]
    assert not watch.gathered(windows[0])
    again = PolicyWatch(policy)
    again.restore(watch.to_bytes())
    assert again.to_bytes() == watch.to_bytes()
    assert not again.gathered(windows[1])
    [(rule, whole)] = again.gathered(windows[2])
    assert rule == policy.rules[0]
    assert (whole.start_us, whole.end_us, whole.sums.tolist()) == (0, 3, [36, 6])
    assert not again.gathered(windows[3])


def test_a_rule_that_needs_many_rows_holds_back_no_other() -> None:
    rules = (a_rule(), a_rule(name="rare", least_rows=30), a_rule(name="also", least_rows=30))
    watch = PolicyWatch(a_policy(rules=rules))
    due = [watch.gathered(Window(at, at + 1, np.array([26]))) for at in range(4)]
    names = [[rule.name for rule, _ in each] for each in due]
    assert names == [["worse"], ["worse", "rare", "also"]] * 2
    assert [window.rows for _, window in due[1]] == [26, 52, 52]
    own = [(rules[1], measured(0.9)), (rules[0], measured(0.5))]
    found = watch.feed([], own)
    assert {each.policy_rule: each.is_breach for each in found} == {"worse": False, "rare": True}


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3])
def test_a_threshold_of_a_distance_is_not_passed_by_chance(threshold: float) -> None:
    rng = np.random.default_rng(8)
    layout, reference = number_layout(rng.normal(size=20_000))
    rule = a_rule(metric="js_distance", comparison=Comparison.ABOVE, feature="x")
    rule = replace(rule, warning=threshold, critical=None)
    rows = rows_needed(rule, layout, reference)
    calm = [
        of_window(rule, layout, reference, Window(0, 1, counted(layout, rng.normal(size=rows))))
        for _ in range(200)
    ]
    values = [each.value for each in calm if each is not None]
    assert len(values) == 200
    assert max(values) < threshold
    assert max(values) > threshold / 3, "no more rows than it takes"
    assert rows_needed(replace(rule, metric="null_rate"), layout, reference) == rule.least_rows
    moved = counted(layout, rng.normal(size=rows) + 10 * threshold)
    told = of_window(rule, layout, reference, Window(0, 1, moved))
    assert told is not None
    assert told.value > threshold


def test_nobody_waits_for_more_rows_than_the_reference_has() -> None:
    layout, reference = number_layout(np.random.default_rng(8).normal(size=2000))
    rule = a_rule(metric="js_distance", comparison=Comparison.ABOVE, feature="x", warning=0.001)
    assert rows_needed(rule, layout, reference) == 2000
    assert rows_needed(replace(rule, least_rows=9000), layout, reference) == 9000


def number_layout(values: np.ndarray) -> tuple[Layout, np.ndarray]:
    bins = bins_of(NumberColumn(values))
    layout = layout_of({"x": bins}, bins)
    return layout, counted(layout, values)


def counted(layout: Layout, values: np.ndarray) -> np.ndarray:
    rows = len(values)
    return count(layout, Rows(np.zeros(rows, dtype=np.intp), 1, (NumberColumn(values),), values))[0]


def test_truths_are_looked_at_once_a_window() -> None:
    watch = PolicyWatch(a_policy())
    assert [watch.is_new_window(each) for each in (3, 3, 4, 2)] == [True, False, True, False]
    again = PolicyWatch(a_policy())
    again.restore(watch.to_bytes())
    assert not again.is_new_window(4)


def test_a_state_that_was_damaged_is_refused() -> None:
    watch = PolicyWatch(a_policy())
    watch.feed([measured(0.6)])
    state = watch.to_bytes()
    for at in range(0, len(state), 7):
        damaged = state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]
        with pytest.raises(CorruptState):
            watch.restore(damaged)


@pytest.mark.parametrize("page", ["set-a-policy.md", "get-alerts-by-webhook.md"])
def test_the_policies_that_the_pages_show_are_valid(page: str) -> None:
    text = (ROOT / "docs" / "how-to" / page).read_text()
    [shown] = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    policy = policy_of(policy_files.read(shown, name=page, model_name="delays"))
    columns = frozenset({"carrier", "dep_minute", "tail_number", "light", "humidity"})
    hosts = AllowedHosts.parse("localhost,127.0.0.1")
    assert list(map(str, problems_of(policy, Known(columns, hosts)))) == []
