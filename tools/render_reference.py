"""Renders the reference pages that follow from code; `--check` says whether they are current."""

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

from homeostat.topics import TOPICS

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
SERVICES = ("registry", "inference", "ledger", "monitor", "retrainer")
_DAY = 86_400
_NOTE = "<!-- Rendered by tools/render_reference.py; `make reference` renders it again. -->\n\n"


def topics_page() -> str:
    """docs/reference/topics.md."""
    lines = [
        "# Topics\n",
        _TOPICS_LEAD,
        "| topic | message | key | partitions | kept | written by | read by |\n",
        "|---|---|---|---|---|---|---|\n",
    ]
    for each in TOPICS:
        kept = f"{each.retention_seconds // _DAY} days" if each.retention_seconds else "for good"
        lines.append(
            f"| `{each.name}` | `{each.message.DESCRIPTOR.full_name}` | {each.key} "
            f"| {each.partitions} | {kept} | {', '.join(each.writers)} "
            f"| {', '.join(each.readers) or 'whoever wants'} |\n"
        )
    return _NOTE + "".join(lines)


def configuration_page() -> str:
    """docs/reference/configuration.md."""
    parts = [
        "# Configuration\n\nEach service reads its environment once, at start. `homeostat up` "
        "sets what is needed for the embedded default; a setting here wins over it with "
        "`homeostat up --set`.\n"
    ]
    for name in SERVICES:
        parts.append(f"\n## {name}\n\n| variable | default | meaning |\n|---|---|---|\n")
        parts.extend(_setting_rows(_settings_class(name)))
    return _NOTE + "".join(parts)


def _settings_class(service: str) -> type[BaseSettings]:
    module = importlib.import_module(f"homeostat_{service}.settings")
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type)
        and issubclass(each, BaseSettings)
        and each.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"homeostat_{service}.settings should define one settings class")
    return found[0]


def _setting_rows(settings: type[BaseSettings]) -> Iterator[str]:
    prefix = settings.model_config.get("env_prefix", "")
    comments = _comments(settings)
    for name, field in settings.model_fields.items():
        default = "required" if field.is_required() else f"`{_default(field.default)}`"
        meaning = field.description or comments.get(name, "")
        yield f"| `{(prefix + name).upper()}` | {default} | {meaning} |\n"


def _comments(settings: type[BaseSettings]) -> dict[str, str]:
    """The comment above each field, or above the fields right before it, base classes included."""
    found: dict[str, str] = {}
    for each in reversed(settings.__mro__):
        if not issubclass(each, BaseSettings) or each is BaseSettings:
            continue
        above: list[str] = []
        is_after_field = False
        for line in inspect.getsource(each).splitlines():
            text = line.strip()
            field = re.match(r"(\w+): ", text)
            if text.startswith("#"):
                above = [] if is_after_field else above
                above.append(text.lstrip("# "))
            elif field and above:
                found[field[1]] = " ".join(above)
            elif not text:
                above = []
            is_after_field = field is not None
    return found


def _default(value: Any) -> str:
    if hasattr(value, "get_secret_value"):
        return "(secret)" if value.get_secret_value() else ""
    return "" if value is None else str(value)


def asyncapi_page() -> str:
    """docs/reference/asyncapi.yaml: AsyncAPI 3.0 of every topic."""
    channels, operations, messages = {}, {}, {}
    for each in TOPICS:
        name = each.message.DESCRIPTOR.name
        channels[name] = {
            "address": each.name,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "bindings": {"kafka": {"partitions": each.partitions}},
        }
        operations[f"receive{name}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
        }
        messages[name] = {
            "name": each.ce_type,
            "contentType": "application/protobuf",
            "summary": f"{each.message.DESCRIPTOR.full_name}, keyed by {each.key}.",
            "headers": {"type": "object", "properties": dict.fromkeys(_HEADERS, _TEXT)},
        }
    page = {
        "asyncapi": "3.0.0",
        "info": {"title": "Homeostat", "version": "1", "description": _ASYNCAPI},
        "defaultContentType": "application/protobuf",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }
    return "# Rendered by tools/render_reference.py.\n" + yaml.safe_dump(page, sort_keys=False)


_TOPICS_LEAD = (
    "One message type each, Protocol Buffers in the body, CloudEvents 1.0 (binary mode) in the "
    "headers. What can't be read goes to `<topic>.dlq` with the reason in the headers and "
    "without values. Samples stand in `proto/samples/`.\n\n"
)
_ASYNCAPI = (
    "Facts that Homeostat tells on Kafka. CloudEvents 1.0 in binary mode: attributes stand in the "
    "headers, the body is the Protocol Buffers message of proto/homeostat/events/v1."
)
_HEADERS = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "traceparent")
_TEXT = {"type": "string"}


def hostile_requests_page() -> str:
    """docs/reference/hostile-requests.md: the corpus that the tests send."""
    sys.path.insert(0, str(ROOT))
    corpus = importlib.import_module("tests.hostile.page")
    return _NOTE + str(corpus.requests_page())


def hostile_models_page() -> str:
    """docs/reference/hostile-models.md: the corpus that the tests register."""
    sys.path.insert(0, str(ROOT))
    corpus = importlib.import_module("tests.hostile.models_page")
    return _NOTE + str(corpus.models_page())


PAGES: Mapping[str, Callable[[], str]] = {
    "topics.md": topics_page,
    "configuration.md": configuration_page,
    "asyncapi.yaml": asyncapi_page,
    "hostile-models.md": hostile_models_page,
    "hostile-requests.md": hostile_requests_page,
}


def main() -> int:
    """0, or 1 with `--check` where a page is not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    only_check = parser.parse_args().check
    stale = []
    for name, render in PAGES.items():
        page = REFERENCE / name
        text = render()
        if not page.exists() or page.read_text() != text:
            stale.append(name)
            if not only_check:
                page.parent.mkdir(parents=True, exist_ok=True)
                page.write_text(text)
    if only_check and stale:
        print(f"not current: {', '.join(stale)}; run `make reference`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
