"""RPCs about policies and what they buy."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceServicer
from homeostat_kit.auth import caller_name
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_monitor.app import policies
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.policies.checks import Known, require_valid
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.messages.policies import policy_message, policy_of
from homeostat_monitor.past.backtests import DEFAULT_DAYS, Backtests, Question
from homeostat_monitor.past.messages import backtest_message
from homeostat_monitor.store.policies import PolicyStore
from homeostat_monitor.store.transaction import Reader
from homeostat_monitor.versions import RegistryAway, Versions

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class PoliciesApi(MonitorServiceServicer):
    """Its part of the contract; whoever inherits gives what it asks."""

    _pool: Pool
    _reader: Reader
    _versions: Versions
    _hosts: AllowedHosts
    _backtests: Backtests

    async def GetPolicy(  # noqa: N802
        self,
        request: pb.GetPolicyRequest,
        context: "Context[pb.GetPolicyRequest, pb.GetPolicyResponse]",
    ) -> pb.GetPolicyResponse:
        """The one that holds, defaults written out; NOT_FOUND."""
        async with self._pool.acquire() as connection:
            policy = await policies.get_policy(request.model_name, tx=PolicyStore(connection))
        return pb.GetPolicyResponse(policy=policy_message(policy))

    async def SetPolicy(  # noqa: N802
        self,
        request: pb.SetPolicyRequest,
        context: "Context[pb.SetPolicyRequest, pb.SetPolicyResponse]",
    ) -> pb.SetPolicyResponse:
        """INVALID_ARGUMENT with one problem a line; ABORTED where the revision is another."""
        policy = policy_of(request.policy)
        known = await self._known(policy.model_name)
        expected = request.expected_revision if request.HasField("expected_revision") else None

        async def work(connection: Connection) -> Policy:
            return await policies.set_policy(
                policy,
                who=caller_name() or request.policy.set_by,
                known=known,
                expected_revision=expected,
                is_dry_run=request.is_dry_run,
                tx=PolicyStore(connection),
            )

        return pb.SetPolicyResponse(policy=policy_message(await retrying(self._pool, work)))

    async def BacktestPolicy(  # noqa: N802
        self,
        request: pb.BacktestPolicyRequest,
        context: "Context[pb.BacktestPolicyRequest, pb.BacktestPolicyResponse]",
    ) -> AsyncIterator[pb.BacktestPolicyResponse]:
        """Progress and the result; see Backtests.run for what it refuses, and INVALID_ARGUMENT
        with one problem a line."""
        policy = policy_of(request.policy)
        # NOT_FOUND for a model that nobody has heard of, before anything is said of the policy.
        known = await self._known(policy.model_name)
        require_valid(policy, known)
        question = Question(
            policy,
            request.days if request.HasField("days") else DEFAULT_DAYS,
            request.version if request.HasField("version") else None,
        )
        async with aclosing(self._backtests.run(question)) as steps:
            async for each in steps:
                yield backtest_message(each)

    async def _known(self, model_name: str) -> Known:
        """What the serving version says; names are not looked up while the registry is away."""
        features: frozenset[str] | None = None
        standing = await self._reader.champion(model_name)
        if standing is not None:
            try:
                watched = await self._versions.get(standing.subject)
            except RegistryAway:
                return Known(hosts=self._hosts)
            if watched.schema is not None:
                features = frozenset(each.name for each in watched.schema.inputs)
        return Known(features=features, hosts=self._hosts)
