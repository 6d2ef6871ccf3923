"""Where webhooks may go: hosts that the operator named, and addresses that such a name may have.

Whoever sets a policy writes the URL; the monitor stands inside of the network. So the operator's
list says which hosts are reached at all (server-side request forgery, CWE-918).
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
# IPv6 addresses that stand for an IPv4 address: NAT64, 6to4, Teredo.
_TUNNELS = tuple(
    ipaddress.IPv6Network(each)
    for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
# What a URL is made of (RFC 3986); whatever else is read differently by different readers.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_LOOPBACK_NAMES = frozenset({"localhost"})
_MOST_URL_CHARACTERS = 2_000

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadHosts(ValueError):
    """The operator's list can't be read; the message says which entry and how it is written."""


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry: a host, or all below a domain, perhaps at one port, perhaps without TLS."""

    # In lower case; "*.example.com" for what is below, "*" for every host.
    name: str
    # None: any.
    port: int | None = None
    is_plain: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the operator named this very host, and so its addresses, internal ones too."""
        return not self.name.startswith("*")

    def fits(self, host: str, port: int) -> bool:
        """Whether a URL's host and port are meant."""
        if self.port is not None and self.port != port:
            return False
        if self.is_exact:
            return self.name == host
        return self.name == "*" or host.endswith(self.name[1:])


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The operator's list."""

    entries: Sequence[AllowedHost]

    @classmethod
    def parse(cls, text: str) -> "AllowedHosts":
        """``hooks.example.com, *.example.org, http://10.0.0.7:8080``; BadHosts names the entry."""
        return cls(tuple(_entry(each.strip()) for each in text.split(",") if each.strip()))

    def refusal(self, url: str) -> str | None:
        """Why nothing may be posted there, with the cure; None where it may."""
        parts, why = _split(url)
        if parts is None:
            return why
        host, port = _place(parts)
        fitting = [each for each in self.entries if each.fits(host, port)]
        if not fitting:
            return (
                f"the host {host!r} is not among those that the operator allows; cure: add it to "
                "HOMEOSTAT_MONITOR_WEBHOOK_HOSTS and start the monitor anew"
            )
        if _is_address(host) and not self.may_reach(url, host):
            return f"a webhook may not have the address {host}; cure: let the operator name it"
        if parts.scheme == "http" and not (
            is_loopback_name(host) or any(each.is_plain for each in fitting)
        ):
            return (
                "plain http sends the alert readable over the network; cure: write https, or let "
                f"the operator allow http://{host} in HOMEOSTAT_MONITOR_WEBHOOK_HOSTS"
            )
        return None

    def may_reach(self, url: str, address: str) -> bool:
        """Whether the URL's host may have this address.

        A host that is named exactly may be anywhere but at link-local addresses (where clouds keep
        their credentials); one that a wildcard lets in only at public addresses.
        """
        try:
            parsed = _mapped(ipaddress.ip_address(address))
        except ValueError:
            return False
        host, port = _place(urlsplit(url))
        if parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and any(parsed in each for each in _TUNNELS):
            return False
        if any(each.is_exact and each.fits(host, port) for each in self.entries):
            return True
        return parsed.is_global


def is_loopback_name(host: str) -> bool:
    """Whether a URL's host is this machine, whatever a name server says."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return _mapped(ipaddress.ip_address(host)).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """The host as it is looked up in the list."""
    return _place(urlsplit(url))[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _mapped(address: Address) -> Address:
    """What ::ffff:a.b.c.d stands for."""
    inner = getattr(address, "ipv4_mapped", None)
    return inner if isinstance(inner, ipaddress.IPv4Address) else address


def _split(url: str) -> tuple[SplitResult | None, str]:
    if len(url) > _MOST_URL_CHARACTERS:
        return None, f"the URL has more than {_MOST_URL_CHARACTERS} characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return None, f"{url!r} is no URL ({error}); cure: write https://host/path"
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        return None, f"{url!r} is no http(s) URL; cure: write https://host/path"
    if parts.username is not None or parts.password is not None:
        return None, "a URL holds no user or password; cure: leave them out, posts are signed"
    if not _URL.fullmatch(url):
        return None, f"{url!r} holds characters that a URL has not; cure: percent-encode them"
    return parts, ""


def _place(parts: SplitResult) -> tuple[str, int]:
    host = (parts.hostname or "").lower().rstrip(".")
    return host, parts.port or _PORTS[parts.scheme]


def _entry(text: str) -> AllowedHost:
    is_plain = text.startswith("http://")
    rest = text.removeprefix("http://").removeprefix("https://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port
    except ValueError as error:
        raise BadHosts(f"webhook_hosts: {text!r}: {error}") from None
    is_wild = host == "*" or (host.startswith("*.") and "*" not in host[1:])
    if not host or parts.path or parts.query or ("*" in host and not is_wild):
        raise BadHosts(
            f"webhook_hosts: {text!r} is no host; write hooks.example.com, *.example.com, "
            "127.0.0.1:8080 or http://hooks.internal"
        )
    return AllowedHost(host, port, is_plain)
