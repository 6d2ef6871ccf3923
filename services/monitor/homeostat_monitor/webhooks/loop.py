"""HTTP: posts what waits for webhooks, with pauses that grow, until it is taken or given up."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from homeostat_kit import logs
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.postgres import Pool
from homeostat_monitor.app.notifying import attempt
from homeostat_monitor.domain.alerts.deliveries import Answer, Outcome, UnusableSecret, keys_of
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store.policies import Claimed, NotificationStore
from homeostat_monitor.webhooks.posting import Poster

if TYPE_CHECKING:
    from homeostat_monitor.domain.policies.policy import Policy

# Posts under way at once.
_MOST_POSTS = 8
# Who told wakes; this is for what another instance told.
_IDLE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
# Beyond the time-out of a post, before another instance may try.
_CLAIM_MARGIN_SECONDS = 30.0
_MOST_SECRET_BYTES = 4_096

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = logs.get_logger("homeostat_monitor.webhooks")


class Secrets:
    """Keys by the names of their files; read anew for every post, so that they can be changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> Sequence[bytes]:
        """UnusableSecret names the cure; never the key."""
        try:
            with (self._folder / name).open("rb") as file:
                text = file.read(_MOST_SECRET_BYTES).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableSecret(
                f"the secret {name!r} cannot be read ({type(error).__name__}); cure: put a file of "
                "this name with a line whsec_<base64> into the monitor's folder of secrets"
            ) from None
        return keys_of(text, name)


class WebhookLoop:
    """Delivers; any number of instances may, each notification is tried by one at a time."""

    def __init__(
        self,
        pool: Pool,
        *,
        hosts: AllowedHosts,
        secrets_folder: Path,
        timeout_seconds: float,
        give_up_seconds: float,
        metrics: Metrics,
    ) -> None:
        """``hosts`` may be posted to; ``timeout_seconds`` bounds one post as a whole."""
        self._store = NotificationStore(pool)
        self._hosts = hosts
        self._keys = Secrets(secrets_folder)
        self._poster = Poster(hosts, timeout_seconds)
        self._claim_seconds = timeout_seconds + _CLAIM_MARGIN_SECONDS
        self._give_up_seconds = give_up_seconds
        self._metrics = metrics
        self._woken = asyncio.Event()
        # Of pauses, so that instances and webhooks do not come all at once.
        self._random = random.Random()

    def wake(self) -> None:
        """Something was put out."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until ``stop``; what is under way then is tried again after the next start."""
        pause = 0.1
        async with asyncio.TaskGroup() as group:
            posts: set[asyncio.Task[None]] = set()
            while not stop.is_set():
                self._woken.clear()
                try:
                    await self._start_posts(group, posts)
                    pause = 0.1
                except _AWAY as error:
                    _log.warning("webhooks_wait", error=repr(error))
                    await first_of(stop, timeout=pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                await first_of(stop, self._woken, timeout=_IDLE_SECONDS)
            for each in posts:
                each.cancel()

    async def _start_posts(self, group: asyncio.TaskGroup, posts: set[asyncio.Task[None]]) -> None:
        """As many as there is room for; one that hangs holds up its own webhook alone."""
        room = _MOST_POSTS - len(posts)
        if room <= 0:
            return
        for each in await self._store.claim(self._claim_seconds, room):
            task = group.create_task(self._deliver(each))
            posts.add(task)
            task.add_done_callback(posts.discard)
            # There may be more for this webhook, and room again.
            task.add_done_callback(lambda _: self._woken.set())

    async def _deliver(self, claimed: Claimed) -> None:
        each = claimed.notification
        try:
            outcome = await self._try(await self._store.policy(each.model_name), claimed)
            await self._note(claimed, outcome)
        except _AWAY as error:
            # The claim ends by itself and somebody tries again.
            _log.warning("webhooks_wait", error=repr(error))

    async def _try(self, policy: "Policy", claimed: Claimed) -> Outcome:
        each = claimed.notification
        return await attempt(
            policy,
            each.webhook_name,
            message_id=each.notification_id,
            body=each.body.encode(),
            tries=each.tries,
            now_seconds=claimed.now_seconds,
            age_seconds=claimed.age_seconds,
            give_up_seconds=self._give_up_seconds,
            jitter=self._random.random(),
            hosts=self._hosts,
            keys=self._keys,
            post=self._post,
        )

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return await self._poster.post(url, headers, body)

    async def _note(self, claimed: Claimed, outcome: Outcome) -> None:
        each = claimed.notification
        if outcome.is_delivered:
            await self._store.note_delivered(each.notification_id)
        elif outcome.is_gone:
            await self._store.note_gone(each.model_name, each.webhook_name, outcome.error)
        else:
            await self._store.note_failed(
                each.notification_id,
                outcome.error,
                is_given_up=outcome.is_given_up,
                retry_seconds=outcome.retry_seconds,
            )
        word = _word(outcome)
        self._metrics.notifications.add(1, {"outcome": word})
        if not outcome.is_delivered:
            _log.warning(
                "webhook_" + word,
                model_name=each.model_name,
                webhook_name=each.webhook_name,
                notification_id=each.notification_id,
                tries=each.tries,
                error=outcome.error,
            )


def _word(outcome: Outcome) -> str:
    if outcome.is_delivered:
        return "delivered"
    if outcome.is_gone:
        return "gone"
    return "given_up" if outcome.is_given_up else "failed"
