"""Tables and ratios of what was measured, as text."""

from collections.abc import Mapping
from typing import Any

# The names of one peer's set-ups; a ratio is to the best of them.
GROUPS = {
    "triton": ("triton", "triton-batching"),
    "mlserver": ("mlserver", "mlserver-worker"),
    "kserve": ("kserve",),
}
Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]


def comparison(found: Cells) -> str:
    """Rates, latencies, and the ratio of each of ours to the best set-up of each peer."""
    lines: list[str] = []
    for key, servers in found.items():
        lines += ["", f"### {key}", ""]
        lines.append(
            "| server | requests/s | lowest to highest | p50 us | p99 us | "
            + " | ".join(f"x {each}" for each in GROUPS)
            + " |"
        )
        lines.append("|---|---|---|---|---|" + "---|" * len(GROUPS))
        for name, each in servers.items():
            ratios = [_ratio(name, each, servers, group) for group in GROUPS.values()]
            lines.append(
                f"| {name} | {each['requests_per_second']:,.0f} "
                f"| {each['lowest']:,.0f} to {each['highest']:,.0f} "
                f"| {each['p50_us']:,.0f} | {each['p99_us']:,.0f} | {' | '.join(ratios)} |"
            )
        lines += tails(servers)
    return "\n".join(lines)


def _ratio(
    name: str, own: Mapping[str, Any], servers: Mapping[str, Mapping[str, Any]], group: Any
) -> str:
    best = max(
        (servers[each]["requests_per_second"] for each in group if each in servers), default=0
    )
    if not best or not name.startswith("ours"):
        return ""
    return f"{own['requests_per_second'] / best:.2f}"


def tails(servers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Our p99 against every peer's p50, and what logging costs."""
    peers = {name: each for name, each in servers.items() if not name.startswith("ours")}
    lines = []
    if peers:
        least = min(each["p50_us"] for each in peers.values())
        lines += [
            f"- {name}: p99 {each['p99_us']:,.0f} us; the lowest p50 of a peer {least:,.0f} us"
            for name, each in servers.items()
            if name.startswith("ours")
        ]
    return ["", *lines, *logging_cost(servers)]


def logging_cost(servers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rate and p99 of each of ours beside logging off."""
    lines = []
    for name, each in servers.items():
        off = servers.get("-".join(["ours", "off", *name.split("-")[2:]]))
        if off is None or not name.startswith("ours") or name.startswith("ours-off"):
            continue
        cost = 1 - each["requests_per_second"] / off["requests_per_second"]
        later = (each["p99_us"] - off["p99_us"]) / 1000
        lines.append(f"- {name}: logging takes {cost:.1%} of the throughput, p99 {later:+.2f} ms")
    return lines


def rows64(found: Cells) -> str:
    """Rows per second beside onnxruntime's own, measured just before each."""
    lines = ["", "### 64-row requests of trees, 16 connections", ""]
    lines.append("| server | rows/s | onnxruntime, one core | share | p50 us | p99 us |")
    lines.append("|---|---|---|---|---|---|")
    for servers in found.values():
        lines += [
            f"| {name} | {each['rows_per_second']:,.0f} "
            f"| {each['onnxruntime_rows_per_second']:,.0f} | {each['share_of_onnxruntime']:.1%} "
            f"| {each['p50_us']:,.0f} | {each['p99_us']:,.0f} |"
            for name, each in servers.items()
        ]
    return "\n".join(lines)


def one_call(found: Cells) -> str:
    """Quantiles of single calls on idle servers."""
    lines = ["", "### One tritonclient call at a time, idle server"]
    for key, servers in found.items():
        lines += ["", key, "", "| server | p50 us | p90 us | p99 us |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {each['p50_us']:,.0f} | {each['p90_us']:,.0f} | {each['p99_us']:,.0f} |"
            for name, each in sorted(servers.items(), key=lambda one: one[1]["p50_us"])
        ]
    return "\n".join(lines)


def plain(title: str, found: Mapping[str, Any]) -> str:
    """Names and values as they are."""
    lines = ["", f"### {title}", ""]
    for name, value in found.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{key} {_number(each)}" for key, each in value.items())
            lines.append(f"- {name}: {inner}")
        else:
            lines.append(f"- {name}: {_number(value)}")
    return "\n".join(lines)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
