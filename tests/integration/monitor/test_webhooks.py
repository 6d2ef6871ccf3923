"""Alerts posted to a real HTTP server, signed and tried again; and what people know of them."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat_kit import telemetry
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_monitor.app import policies
from homeostat_monitor.domain.alerts.alert import Alert, Moment, Severity, State, Subject
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.alerts.ids import alert_id
from homeostat_monitor.domain.errors import BadRequest, StaleRevision, UnknownAlert
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policies.checks import Known
from homeostat_monitor.domain.policies.policy import Mute, Policy, Webhook
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store.policies import (
    Notification,
    NotificationStore,
    PolicyStore,
    alert_events,
)
from homeostat_monitor.webhooks.loop import WebhookLoop

MODEL = "delays"
EXAMPLE = Path(__file__).parents[3] / "examples" / "quickstart" / "webhooks.py"
HOSTS = AllowedHosts.parse("127.0.0.1")
KNOWN = Known(hosts=HOSTS)
KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
SECOND_US = 1_000_000
FOREVER_US = 2**51

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Receiver:
    """A receiver of webhooks that answers what the test wants."""

    url: str = ""
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    behaviour: Behaviour | None = None

    async def receive(self, request: web.Request) -> web.StreamResponse:
        self.posts.append((dict(request.headers), await request.read()))
        if self.behaviour is None:
            return web.Response(status=204)
        return await self.behaviour(request)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.posts]


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    pool = await open_pool(postgres_url, max_size=4)
    await migrate(pool, "homeostat_monitor")
    async with pool.acquire() as connection:
        await PolicyStore(connection).add_models([MODEL])
    yield pool
    await pool.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    (tmp_path / "pager").write_text(KEY + "\n")
    return tmp_path


@asynccontextmanager
async def delivering(
    pool: Pool, secrets: Path, *, timeout: float = 5.0, give_up: float = 1e6
) -> AsyncIterator[WebhookLoop]:
    traces = telemetry.setup("monitor", None)
    loop = WebhookLoop(
        pool,
        hosts=HOSTS,
        secrets_folder=secrets,
        timeout_seconds=timeout,
        give_up_seconds=give_up,
        metrics=Metrics(traces.meter),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(loop.run(stop))
    try:
        yield loop
    finally:
        stop.set()
        await task
        traces.close()


def an_alert(number: int = 0, *, rule: Rule = Rule.COVARIATE, feature: str = "speed") -> Alert:
    at = Moment(number * SECOND_US, number * SECOND_US)
    return Alert(
        alert_id=alert_id(Subject(MODEL, 1), rule, feature, number),
        subject=Subject(MODEL, 1),
        rule=rule,
        feature=feature,
        state=State.OPENED,
        severity=Severity.WARNING,
        resolution=None,
        summary="speed left its reference distribution.",
        since_us=number * SECOND_US,
        moment=at,
        observed=0.3,
        reference=0.05,
        threshold=0.1,
        shares=(Finding(rule, feature, "js_distance", 0.3, 0.05, 0.1, True, 0.0),),
        cause=Cause.COVARIATE,
        revision=1,
        opened_at=at.watermark_us,
    )


async def keep_policy(pool: Pool, *webhooks: Webhook, throttle: float = 0.0) -> Policy:
    policy = Policy(model_name=MODEL, webhooks=webhooks, throttle_seconds=throttle)
    async with pool.acquire() as connection, connection.transaction():
        return await policies.set_policy(
            policy,
            who="ann",
            known=KNOWN,
            expected_revision=None,
            is_dry_run=False,
            tx=PolicyStore(connection),
        )


async def tell(pool: Pool, *alerts: Alert) -> None:
    async with pool.acquire() as connection, connection.transaction():
        tx = PolicyStore(connection)
        await tx.save_alerts(alerts)
        await tx.tell(alerts)


async def due_now(pool: Pool) -> None:
    """Ends the pauses, as time would."""
    await pool.execute("UPDATE notification SET next_try_at = now()")


async def listed(pool: Pool) -> list[Notification]:
    return await NotificationStore(pool).newest(MODEL, 100)


async def until_tried(pool: Pool, tries: int) -> Notification:
    async def is_tried() -> Notification | None:
        found = await listed(pool)
        done = found and (found[0].delivered_at_us or found[0].is_given_up or found[0].error)
        return found[0] if done and found[0].tries >= tries else None

    found: Notification = await eventually(is_tried)
    return found


def answering(status: int, **headers: str) -> Behaviour:
    async def answer(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, headers=named, body=b"x" * 100_000)

    return answer


async def test_an_alert_is_posted_with_a_signature_that_others_can_check(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    alert = an_alert()
    await tell(pool, alert)
    async with delivering(pool, secrets):
        found = await until_tried(pool, 1)
    assert found.delivered_at_us is not None
    [(headers, body)] = receiver.posts
    event = Verifier(KEY).verify(body, {each.lower(): value for each, value in headers.items()})
    assert event["id"] == found.notification_id == headers["webhook-id"]
    assert event["type"] == "homeostat.alert.opened"
    assert event["data"]["alert_id"] == alert.alert_id
    assert event["data"]["features"][0]["feature"] == "speed"
    with pytest.raises(WebhookVerificationError):
        Verifier(OTHER_KEY).verify(body, {each.lower(): value for each, value in headers.items()})


async def test_while_keys_are_changed_the_old_and_the_new_one_hold(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    (secrets / "pager").write_text(f"# new\n{OTHER_KEY}\n# old\n{KEY}\n")
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    await tell(pool, an_alert())
    async with delivering(pool, secrets):
        await until_tried(pool, 1)
    [(headers, body)] = receiver.posts
    for key in (KEY, OTHER_KEY):
        Verifier(key).verify(body, {each.lower(): value for each, value in headers.items()})


async def test_a_failure_is_tried_again_with_the_same_id_and_body(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    receiver.behaviour = answering(500)
    await tell(pool, an_alert())
    async with delivering(pool, secrets) as loop:
        failed = await until_tried(pool, 1)
        assert failed.error == "it answered 500"
        receiver.behaviour = None
        await due_now(pool)
        loop.wake()
        await eventually(lambda: len(receiver.posts) == 2)

        async def is_delivered() -> bool:
            [found] = await listed(pool)
            return found.delivered_at_us is not None and found.error == "" and found.tries == 2

        await eventually(is_delivered)
    assert len(set(receiver.ids)) == 1
    assert receiver.posts[0][1] == receiver.posts[1][1]


async def test_a_receiver_may_ask_for_a_longer_pause(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    receiver.behaviour = answering(429, retry_after="7200")
    await tell(pool, an_alert())
    async with delivering(pool, secrets):
        await until_tried(pool, 1)
    pause = await pool.fetchval("SELECT extract(epoch FROM next_try_at - now()) FROM notification")
    assert 7_000 < pause <= 7_200


async def test_a_redirect_is_not_followed(pool: Pool, receiver: Receiver, secrets: Path) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    receiver.behaviour = answering(307, location=receiver.url + "/elsewhere")
    await tell(pool, an_alert())
    async with delivering(pool, secrets):
        found = await until_tried(pool, 1)
    assert "redirect" in found.error
    assert len(receiver.posts) == 1


async def test_410_ends_it_until_the_policy_is_set_anew(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    hook = Webhook("pager", receiver.url, "pager")
    await keep_policy(pool, hook)
    receiver.behaviour = answering(410)
    await tell(pool, an_alert())
    async with delivering(pool, secrets) as loop:
        assert (await until_tried(pool, 1)).is_given_up
        await tell(pool, an_alert(1, rule=Rule.PREDICTION))
        assert all(each.is_given_up for each in await listed(pool))
        receiver.behaviour = None
        await keep_policy(pool, hook)
        await tell(pool, an_alert(2, rule=Rule.MISSING_VALUES))
        loop.wake()
        await eventually(lambda: len(receiver.posts) == 2)


async def test_one_that_hangs_holds_nobody_else_up(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    release = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("slow"):
            await release.wait()
        return web.Response(status=204)

    receiver.behaviour = hang
    await keep_policy(
        pool,
        Webhook("slow", receiver.url + "/slow", "pager"),
        Webhook("quick", receiver.url + "/quick", "pager"),
    )
    alerts = [an_alert(0), an_alert(1, rule=Rule.PREDICTION), an_alert(2, rule=Rule.STUCK)]
    await tell(pool, *alerts)
    async with delivering(pool, secrets, timeout=60.0):

        async def quick_ones() -> bool:
            done = [each for each in await listed(pool) if each.delivered_at_us is not None]
            return len(done) == 3 and all(each.webhook_name == "quick" for each in done)

        await eventually(quick_ones)
        release.set()
        await eventually(lambda: len(receiver.posts) == 6)


async def test_no_answer_in_time_is_a_failure(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    receiver.behaviour = hang
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    await tell(pool, an_alert())
    async with delivering(pool, secrets, timeout=0.2):
        found = await until_tried(pool, 1)
    assert found.error == "no answer within 0.2 s"


async def test_what_nobody_takes_is_given_up_and_stands_in_the_list(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    receiver.behaviour = answering(503)
    await tell(pool, an_alert())
    async with delivering(pool, secrets, give_up=0.0):
        found = await until_tried(pool, 1)
    assert found.is_given_up
    assert found.error == "it answered 503; given up after 1 tries"


async def test_a_secret_that_is_not_there_is_told_with_its_cure(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "lost"))
    await tell(pool, an_alert())
    async with delivering(pool, secrets) as loop:
        found = await until_tried(pool, 1)
        assert "'lost'" in found.error
        assert not receiver.posts
        (secrets / "lost").write_text(KEY)
        await due_now(pool)
        loop.wake()
        await eventually(lambda: len(receiver.posts) == 1)


async def test_an_event_is_posted_once_however_often_it_is_told(
    pool: Pool, receiver: Receiver, secrets: Path
) -> None:
    await keep_policy(pool, Webhook("pager", receiver.url, "pager"))
    await tell(pool, an_alert())
    await tell(pool, an_alert())
    assert len(await listed(pool)) == 1


async def test_a_webhook_hears_only_what_it_wants(pool: Pool) -> None:
    await keep_policy(
        pool,
        Webhook("all", "http://127.0.0.1/a", "pager"),
        Webhook("grave", "http://127.0.0.1/b", "pager", Severity.CRITICAL),
        Webhook("west", "http://127.0.0.1/c", "pager"),
    )
    grave = replace(an_alert(1, rule=Rule.PREDICTION), severity=Severity.CRITICAL)
    await tell(pool, an_alert(), grave)
    names = sorted(each.webhook_name for each in await listed(pool))
    assert names == ["all", "all", "grave", "west", "west"]


async def test_a_mute_keeps_webhooks_quiet_and_the_topic_hears_all_the_same(pool: Pool) -> None:
    await keep_policy(pool, Webhook("pager", "http://127.0.0.1/a", "pager"))
    mute = Mute(MODEL, Rule.COVARIATE, "speed", "", FOREVER_US, "ann", "works on the road")
    async with pool.acquire() as connection, connection.transaction():
        assert await policies.mute(mute, tx=PolicyStore(connection))
        assert await PolicyStore(connection).mutes(MODEL) == [mute]
    other = an_alert(1, rule=Rule.STUCK)
    await tell(pool, an_alert(), other)
    [told] = await listed(pool)
    assert told.alert_id == other.alert_id
    assert [each.is_muted for each in await alert_events(pool, an_alert().alert_id)] == [True]
    assert await pool.fetchval("SELECT count(*) FROM outbox") == 2
    async with pool.acquire() as connection, connection.transaction():
        assert not await policies.mute(replace(mute, until_us=0), tx=PolicyStore(connection))
        assert await PolicyStore(connection).mutes(MODEL) == []


async def test_the_throttle_tells_a_rule_once_in_its_time_and_critical_ones_at_once(
    pool: Pool,
) -> None:
    await keep_policy(pool, Webhook("pager", "http://127.0.0.1/a", "pager"), throttle=10.0)
    first, second, third = an_alert(0), an_alert(5), an_alert(11)
    await tell(pool, first)
    await tell(pool, replace(first, state=State.RESOLVED, revision=2))
    await tell(pool, second)
    worse = replace(second, state=State.ESCALATED, severity=Severity.CRITICAL, revision=2)
    await tell(pool, worse)
    await tell(pool, replace(worse, state=State.RESOLVED, revision=3))
    await tell(pool, third)
    told = {(each.alert_id, each.alert_revision) for each in await listed(pool)}
    assert told == {
        (first.alert_id, 1),
        (first.alert_id, 2),
        (second.alert_id, 2),
        (second.alert_id, 3),
    }


async def test_who_has_seen_an_alert_is_one_more_event_of_it(pool: Pool) -> None:
    alert = an_alert()
    await tell(pool, alert)
    async with pool.acquire() as connection, connection.transaction():
        tx = PolicyStore(connection)
        seen = await policies.acknowledge(alert.alert_id, who="ann", comment="on it", tx=tx)
        given = await policies.assign(alert.alert_id, to="bob", tx=tx)
        same = await policies.assign(alert.alert_id, to="bob", tx=tx)
    assert (seen.revision, given.revision, same.revision) == (2, 3, 3)
    events = await alert_events(pool, alert.alert_id)
    assert [each.revision for each in events] == [1, 2, 3]
    assert len({each.state for each in events}) == 1
    assert events[-1].acknowledged_by == "ann"
    assert events[-1].assigned_to == "bob"


async def test_of_an_alert_that_is_none_nothing_can_be_said(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        tx = PolicyStore(connection)
        with pytest.raises(UnknownAlert):
            await policies.assign("none", to="bob", tx=tx)
        with pytest.raises(BadRequest):
            await policies.acknowledge("none", who="", comment="", tx=tx)
    with pytest.raises(UnknownAlert):
        await alert_events(pool, "none")


async def test_revisions_are_kept_and_guarded(pool: Pool) -> None:
    assert (await keep_policy(pool)).revision == 1
    second = await keep_policy(pool, throttle=5.0)
    assert (second.revision, second.set_by) == (2, "ann")
    async with pool.acquire() as connection, connection.transaction():
        tx = PolicyStore(connection)
        assert await policies.get_policy(MODEL, tx=tx) == second
        for is_dry_run in (True, False):
            with pytest.raises(StaleRevision):
                await policies.set_policy(
                    Policy(model_name=MODEL),
                    who="bob",
                    known=KNOWN,
                    expected_revision=1,
                    is_dry_run=is_dry_run,
                    tx=tx,
                )
        tried = await policies.set_policy(
            Policy(model_name=MODEL),
            who="bob",
            known=KNOWN,
            expected_revision=2,
            is_dry_run=True,
            tx=tx,
        )
        assert tried.revision == 3
        assert await policies.get_policy(MODEL, tx=tx) == second


async def test_what_is_posted_holds_no_found_expression(pool: Pool) -> None:
    await keep_policy(pool, Webhook("pager", "http://127.0.0.1/a", "pager"))
    await tell(pool, an_alert())
    [told] = await listed(pool)
    assert "expression" not in json.dumps(json.loads(told.body))


async def test_the_receiver_of_the_examples_takes_what_is_signed_and_nothing_else(
    pool: Pool, tmp_path: Path
) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLE),
        str(tmp_path / "pager"),
        str(port),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert b"waiting" in await process.stdout.readline()
        url = f"http://127.0.0.1:{port}/"
        async with ClientSession() as session:
            forged = {"webhook-id": "a", "webhook-timestamp": "0", "webhook-signature": "v1,a"}
            async with session.post(url, data=b"{}", headers=forged) as answer:
                assert answer.status == 401
        await keep_policy(pool, Webhook("pager", url, "pager"))
        await tell(pool, an_alert())
        async with delivering(pool, tmp_path):
            line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line.startswith(b"homeostat.alert.opened: delays: speed left")
    finally:
        process.kill()
        await process.wait()
