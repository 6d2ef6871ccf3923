"""A model's policy as a TOML file: read with every mistake at its line, and written.

TOML and not YAML: Python reads it without one more library, it has no values that change their kind
(``NO``, ``1e3``), and its literal texts hold an expression as it is.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from homeostat.errors import HomeostatError
from homeostat.events.v1.alert_pb2 import AlertRule, DetectionMode, Severity
from homeostat.monitor.v1.policy_pb2 import Comparison, Policy, PolicyRule, Segment, Webhook

_MOST_BYTES = 1_000_000


class BadPolicyFile(HomeostatError, ValueError):
    """The file says no policy; the message has one line for each mistake, with the cure."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong at a place of the file, as "rules[0].metric", counted from 0."""

    place: str
    text: str


Reader = Callable[[Any], Any]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f'{value!r} is no text; cure: write it in quotes, as "{value}"')


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is no number; cure: write it without quotes")


def _count(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32:
        return value
    raise ValueError(f"{value!r} is no count; cure: a whole number from 0")


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [_text(each) for each in value]
    raise ValueError(f'{value!r} is no list; cure: write it as ["a", "b"]')


def _word(enum: Any, prefix: str) -> Reader:
    """Reads a value of an enum by its name in lower case."""
    numbers = {
        name.removeprefix(prefix).lower(): number for name, number in enum.items() if number != 0
    }

    def read(value: Any) -> int:
        if isinstance(value, str) and value in numbers:
            return int(numbers[value])
        near = get_close_matches(str(value), numbers, n=1)
        cure = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(numbers)}"
        raise ValueError(f"there is no {value!r}; cure: {cure}")

    return read


def _words(enum: Any, prefix: str) -> Reader:
    read = _word(enum, prefix)
    return lambda value: [read(each) for each in _texts(value)]


_POLICY: Mapping[str, Reader] = {
    "false_alarms_per_month": _number,
    "mode": _word(DetectionMode, "DETECTION_MODE_"),
    "throttle_seconds": _number,
    "disabled_rules": _words(AlertRule, "ALERT_RULE_"),
    "ignored_features": _texts,
}
_SEGMENT: Mapping[str, Reader] = {"name": _text, "expression": _text}
_RULE: Mapping[str, Reader] = {
    "name": _text,
    "metric": _text,
    "feature": _text,
    "segment": _text,
    "comparison": _word(Comparison, "COMPARISON_"),
    "warning": _number,
    "critical": _number,
    "windows": _count,
    "least_rows": _count,
}
_WEBHOOK: Mapping[str, Reader] = {
    "name": _text,
    "url": _text,
    "secret_name": _text,
    "least_severity": _word(Severity, "SEVERITY_"),
    "segments": _texts,
}
_TABLES: Mapping[str, tuple[type[Any], Mapping[str, Reader]]] = {
    "segments": (Segment, _SEGMENT),
    "rules": (PolicyRule, _RULE),
    "webhooks": (Webhook, _WEBHOOK),
}


def read(text: str, *, name: str, model_name: str) -> Policy:
    """The policy that the file says; ``name`` is the file's, for the messages. BadPolicyFile."""
    if len(text) > _MOST_BYTES:
        raise BadPolicyFile(f"{name}: more than {_MOST_BYTES:,} characters are no policy")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadPolicyFile(f"{name}: no TOML: {error}") from None
    mistakes: list[Mistake] = []
    known = [*_POLICY, *_TABLES]
    top = {each: value for each, value in table.items() if each not in _TABLES}
    policy = Policy(model_name=model_name, **_fields(top, "", _POLICY, known, mistakes))
    for place, (kind, readers) in _TABLES.items():
        getattr(policy, place).extend(_rows(table.get(place, []), place, kind, readers, mistakes))
    if mistakes:
        raise BadPolicyFile(told(text, name, mistakes))
    return policy


def _rows(
    rows: Any, place: str, kind: type[Any], readers: Mapping[str, Reader], mistakes: list[Mistake]
) -> Iterable[Any]:
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        mistakes.append(Mistake(place, f"is no list of tables; cure: write [[{place}]]"))
        return []
    return [
        kind(**_fields(row, f"{place}[{index}].", readers, list(readers), mistakes))
        for index, row in enumerate(rows)
    ]


def _fields(
    table: Mapping[str, Any],
    place: str,
    readers: Mapping[str, Reader],
    known: Sequence[str],
    mistakes: list[Mistake],
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in table.items():
        if key not in readers:
            near = get_close_matches(key, known, n=1)
            cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            mistakes.append(Mistake(place + key, f"is not known; cure: {cure}"))
            continue
        try:
            fields[key] = readers[key](value)
        except ValueError as error:
            mistakes.append(Mistake(place + key, str(error)))
    return fields


def told(text: str, name: str, mistakes: Iterable[Mistake]) -> str:
    """One line for each: file, line, place, what is wrong, the cure."""
    return "\n".join(
        f"{name}:{line_of(text, each.place)}: {each.place}: {each.text}" for each in mistakes
    )


def mistakes_of(details: str) -> list[Mistake]:
    """What the monitor said of a policy, one line for each."""
    lines = (line.partition(": ") for line in details.splitlines() if line)
    return [Mistake(place, text) if text else Mistake("", place) for place, _, text in lines]


_PLACE = re.compile(r"(\w+)(?:\[(\d+)\])?(?:\.(\w+))?")


def line_of(text: str, place: str) -> int:
    """The line of a place, from 1; of its table where the key is not there; 1 if neither is."""
    match = _PLACE.match(place)
    if match is None:
        return 1
    name, index, key = match[1], match[2], match[3]
    lines = text.splitlines()
    begin = 0
    if index is not None:
        heads = [
            number
            for number, line in enumerate(lines)
            if re.match(rf"\s*\[\[\s*{name}\s*\]\]", line)
        ]
        if int(index) < len(heads):
            begin = heads[int(index)]
            found = _key_line(lines, begin + 1, key) if key else None
            return (begin if found is None else found) + 1
    found = _key_line(lines, 0, name)
    return 1 if found is None else found + 1


def _key_line(lines: Sequence[str], begin: int, key: str) -> int | None:
    for number in range(begin, len(lines)):
        if re.match(r"\s*\[", lines[number]):
            return None
        if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", lines[number]):
            return number
    return None


# What a policy may say, for who has none yet.
_RULES = ", ".join(
    name.removeprefix("ALERT_RULE_").lower() for name, number in AlertRule.items() if number
)
_TAUGHT = f"""\
# Nobody set one yet: these are the defaults. What else may stand here:
#   mode = "time_ordered"            # or "iid"; left out, it is chosen from the reference
#   throttle_seconds = 3600.0        # post a rule's new alert once in this time
#   ignored_features = ["feature"]
#   disabled_rules = ["prediction"]
# The rules: {_RULES}.
#   [[segments]]
#   name = "short"
#   expression = 'distance < 500 and carrier in ["AA", "EV"]'
#   [[rules]]                        # thresholds of your own
#   name = "too-wrong"
#   metric = "loss"
#   comparison = "relative_above"    # or above, below, relative_below
#   warning = 0.1
#   critical = 0.3
#   [[webhooks]]
#   name = "pager"
#   url = "https://hooks.example.com/homeostat"
#   secret_name = "pager"            # a file in the monitor's folder of secrets
""".splitlines()


def write(policy: Policy) -> str:
    """The policy as a file that ``read`` takes; defaults that nobody needs are left out."""
    out = [f"# Policy of {policy.model_name}, revision {policy.revision}."]
    out.append(f"false_alarms_per_month = {policy.false_alarms_per_month!r}")
    if policy.mode:
        out.append(f"mode = {_quoted(_name(DetectionMode, policy.mode, 'DETECTION_MODE_'))}")
    if policy.throttle_seconds:
        out.append(f"throttle_seconds = {policy.throttle_seconds!r}")
    if policy.disabled_rules:
        rules = [_name(AlertRule, each, "ALERT_RULE_") for each in policy.disabled_rules]
        out.append(f"disabled_rules = {_list(rules)}")
    if policy.ignored_features:
        out.append(f"ignored_features = {_list(policy.ignored_features)}")
    for segment in policy.segments:
        out += ["", "[[segments]]", *_lines(segment, _SEGMENT)]
    for rule in policy.rules:
        out += ["", "[[rules]]", *_lines(rule, _RULE)]
    for webhook in policy.webhooks:
        out += ["", "[[webhooks]]", *_lines(webhook, _WEBHOOK)]
    if not policy.revision:
        out += _TAUGHT
    return "\n".join(out) + "\n"


def _lines(message: Any, readers: Mapping[str, Reader]) -> Iterable[str]:
    for key in readers:
        value = getattr(message, key)
        if key in ("warning", "critical"):
            if message.HasField(key):
                yield f"{key} = {value!r}"
        elif key == "comparison":
            yield f"{key} = {_quoted(_name(Comparison, value, 'COMPARISON_'))}"
        elif key == "least_severity":
            yield f"{key} = {_quoted(_name(Severity, value, 'SEVERITY_'))}"
        elif key == "segments":
            if value:
                yield f"{key} = {_list(value)}"
        elif isinstance(value, str):
            if value:
                yield f"{key} = {_quoted(value)}"
        else:
            yield f"{key} = {value}"


def _name(enum: Any, number: int, prefix: str) -> str:
    return str(enum.Name(number)).removeprefix(prefix).lower()


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def _quoted(text: str) -> str:
    """A literal text where one can hold it, so that an expression stands as it was written."""
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else _escape(each) for each in escaped) + '"'


def _escape(character: str) -> str:
    return f"\\U{ord(character):08x}"
