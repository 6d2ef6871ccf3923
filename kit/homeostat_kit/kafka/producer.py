"""A producer for one life of the broker: it ends with its connection, instead of reconnecting."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError

from homeostat_kit import logs
from homeostat_kit.kafka.records import MAX_RECORD_BYTES, Outgoing, header_list

# What one request carries per partition; pipelining lives from it.
_BATCH_BYTES = 1024 * 1024
_CLOSE_SECONDS = 0.5

_log = logs.get_logger("homeostat_kit.kafka")


class OneLifeProducer:
    """Sends with acks=all while its connections last.

    A client that reconnects by itself would send what it holds to a broker that has lost all of
    its topics, before anybody made them anew.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str,
        timeout_seconds: float,
        is_idempotent: bool,
    ) -> None:
        """``is_idempotent``: what it repeats by itself is written once, in order. A broker that
        gives out no producer ids fails `start` then."""
        self._producer: Any = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            acks="all",
            enable_idempotence=is_idempotent,
            max_batch_size=_BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES,
            request_timeout_ms=int(timeout_seconds * 1000),
        )
        self._producer.client._on_connection_closed = self._on_connection_closed
        self._is_over = False
        self.is_idempotent = is_idempotent

    @property
    def is_over(self) -> bool:
        """It sends no more: make another."""
        return self._is_over

    async def start(self) -> None:
        """Connects; raises what aiokafka raises."""
        await self._producer.start()

    async def send(self, records: Sequence[Outgoing]) -> list[Any]:
        """The broker's acknowledgements, in order; raises if one was not given, which says nothing
        about the others.
        """
        pending: list[asyncio.Future[Any]] = []
        try:
            for each in records:
                pending.append(await self._begin(each))
            return await asyncio.gather(*pending)
        finally:
            for future in pending:
                future.cancel()

    async def _begin(self, record: Outgoing) -> "asyncio.Future[Any]":
        begun: asyncio.Future[Any] = await self._producer.send(
            record.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            headers=header_list(record.headers),
        )
        return begun

    def end(self) -> None:
        """Fails what is under way, at once; whoever waits for it sends it again."""
        if self._is_over:
            return
        self._is_over = True
        self._producer._message_accumulator.fail_all(KafkaError("the connection is over"))
        sender = self._producer._sender
        if sender is not None and sender.sender_task is not None:
            sender.sender_task.cancel()

    async def close(self) -> None:
        """Ends, without waiting for what it holds: aiokafka's own stop may wait for ever."""
        self.end()
        await close_within(self._producer.client.close)
        await close_within(self._producer.stop)

    def _on_connection_closed(self, connection: Any, reason: Any) -> None:
        self.end()


async def start_producer(
    bootstrap_servers: str, *, client_id: str, timeout_seconds: float
) -> OneLifeProducer:
    """A started producer, idempotent where the broker allows it; raises what aiokafka raises."""
    for is_idempotent in (True, False):
        producer = OneLifeProducer(
            bootstrap_servers,
            client_id=client_id,
            timeout_seconds=timeout_seconds,
            is_idempotent=is_idempotent,
        )
        try:
            await producer.start()
        except UnknownError:
            # What the embedded broker answers to the question for a producer id.
            await producer.close()
            if not is_idempotent:
                raise
        except BaseException:
            await producer.close()
            raise
        else:
            _log.debug("producer_started", is_idempotent=is_idempotent)
            return producer
    raise AssertionError


async def close_within(close: Any, seconds: float = _CLOSE_SECONDS) -> None:
    """Closes something of aiokafka's in a task of its own: that may hang, may fail, and may raise
    the CancelledError of a task that it has cancelled itself.
    """
    closing = asyncio.ensure_future(close())
    done, _ = await asyncio.wait([closing], timeout=seconds)
    if not done:
        closing.cancel()
    elif not closing.cancelled() and closing.exception() is not None:
        _log.debug("close_failed", error=repr(closing.exception()))
