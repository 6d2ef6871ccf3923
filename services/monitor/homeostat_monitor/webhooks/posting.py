"""One HTTP post: bounded in time, led nowhere else, to addresses that are allowed alone."""

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from homeostat_monitor.domain.alerts.deliveries import Answer
from homeostat_monitor.domain.alerts.hosts import AllowedHosts, host_of

if TYPE_CHECKING:
    import aiohttp

_MOST_HEADER_BYTES = 8_190


class Poster:
    """Posts JSON; takes of the answer its status and two headers, never its body."""

    def __init__(self, hosts: AllowedHosts, timeout_seconds: float) -> None:
        """``timeout_seconds`` bounds the whole post: name, connection, TLS and answer."""
        self._hosts = hosts
        self._timeout_seconds = timeout_seconds

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Whatever goes wrong is an answer without a status."""
        # Who posts nothing does not pay for the client.
        import aiohttp  # noqa: PLC0415
        from yarl import URL  # noqa: PLC0415

        if (URL(url).host or "").lower().rstrip(".") != host_of(url):
            return Answer(None, "the URL's host is read in two ways; cure: write it plainly")
        try:
            async with (
                aiohttp.ClientSession(
                    connector=self._connector(url),
                    timeout=aiohttp.ClientTimeout(total=self._timeout_seconds),
                    # No proxies of the environment: the checked address is the one that is met.
                    trust_env=False,
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    max_line_size=_MOST_HEADER_BYTES,
                    max_field_size=_MOST_HEADER_BYTES,
                ) as session,
                session.post(
                    url,
                    data=body,
                    headers={
                        **headers,
                        "content-type": "application/json",
                        "user-agent": "homeostat-monitor",
                        "connection": "close",
                    },
                    allow_redirects=False,
                ) as answer,
            ):
                said = Answer(
                    answer.status,
                    retry_after=answer.headers.get("retry-after", ""),
                    date=answer.headers.get("date", ""),
                )
                # Nothing of the body is waited for.
                answer.close()
                return said
        except TimeoutError:
            return Answer(None, f"no answer within {self._timeout_seconds:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, _said(error))

    def _connector(self, url: str) -> "aiohttp.TCPConnector":
        import aiohttp  # noqa: PLC0415
        from aiohttp.abc import AbstractResolver  # noqa: PLC0415

        hosts = self._hosts

        class Resolver(AbstractResolver):
            """Checks what a name stands for at the moment at which it is connected to."""

            def __init__(self) -> None:
                self._inner = aiohttp.ThreadedResolver()

            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
            ) -> list[Any]:
                found = await self._inner.resolve(host, port, family)
                allowed = [each for each in found if hosts.may_reach(url, each["host"])]
                if not allowed:
                    raise OSError(f"{host} stands for no address that a webhook may have")
                return allowed

            async def close(self) -> None:
                await self._inner.close()

        return aiohttp.TCPConnector(resolver=Resolver(), use_dns_cache=False, force_close=True)


def _said(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text[:300]
