"""The designated node: remembered, moved for a reason, and the same for two balancers on one database."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from balancer.config.inventory import Designated
from balancer.config.overlay import Holder
from balancer.control.designation_row import PostgresStore, seen
from balancer.control.designation_store import FileStore, Remembered, Store, moved
from balancer.control.designations import DesignationKeeper
from balancer.control.events import EventLog
from balancer.control.prober import Prober
from balancer.control.site import Clock, Site
from balancer.control.statefile import StateFile
from balancer.errors import StateError
from balancer.model import Admin, Designation, Health
from tests.control.harness import Rig, nodes, rig, until
from tests.support.postgres import database, postgres_server

__all__ = ["database", "postgres_server"]  # fixtures

PING = {"name": "node-ping", "match": {"path": "/arvados/v1/nodes/{uuid}/ping"}, "to": {"designated": "dns"}}


async def held(control: Rig) -> tuple[str | None, int]:
    (item,) = (await control.get("/v1/designations"))["designations"]
    return item["node"], item["epoch"]


async def until_held(control: Rig, node: str, epoch: int) -> None:
    async def fits() -> bool:
        return await held(control) == (node, epoch)

    await until(fits, deadline_s=20)


def published(control: Rig) -> Designation:
    snapshot = control.workers[0].snapshot
    assert snapshot is not None
    return snapshot.designations[0]


async def test_it_fails_over_in_order_stays_and_survives_restarts() -> None:
    async with nodes("api1", "api2", "api3") as fakes, rig(fakes, designated={"dns": {}}, routes=[PING]) as control:
        await until_held(control, "api1", 1)
        await control.post("/v1/nodes/api1/drain")  # deliberate: no need to wait whether it comes back
        await until_held(control, "api2", 2)
        await until(lambda: (published(control).node, published(control).epoch) == ("api2", 2))
        await control.post("/v1/nodes/api1/undrain")
        await control.until_states(api1="healthy")
        await control.kill()
        await control.start()
        assert await held(control) == ("api2", 2)  # failback is manual
        assert (published(control).node, published(control).epoch) == ("api2", 2)
        await control.post("/v1/designations/dns", node="api1", reason="back home")
        assert await held(control) == ("api1", 3)
        told = [event for event in await control.events() if event["kind"] == "designation-moved"]
        assert [event["node"] for event in told] == ["api1", "api2", "api1"]
        assert told[-1]["actor"] != "arv-balance"


async def test_a_lost_file_does_not_turn_the_epoch_back() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes, designated={"dns": {}}) as control:
        await until_held(control, "api1", 1)
        await control.post("/v1/designations/dns", node="api2")
        await control.kill()
        (control.state_dir / "designations.json").write_text("{")
        await control.start()
        assert await held(control) == ("api2", 2)
        await control.post("/v1/designations/dns", node="api1")
        assert await held(control) == ("api1", 3)


CLUSTER = "xtest"


def decision(node: str, epoch: int, held_: Remembered | None = None) -> Remembered:
    return moved(held_, node, epoch, "2026-11-24T08:00:00+00:00", "because", "root")


async def agrees_with_the_contract(one: Store, two: Store) -> None:
    """What every store has to do, whoever looks through which handle."""
    assert await one.read("dns") is None
    first = decision("api1", 1)
    assert await one.swap("dns", 0, first)
    assert await two.read("dns") == first
    assert not await two.swap("dns", 0, decision("api2", 1)), "somebody was quicker"
    second = decision("api2", 2, first)
    results = [await store.swap("dns", 1, second) for store in (one, two)]
    assert results == [True, False]
    assert await one.read("dns") == await two.read("dns") == second
    assert await one.read("other") is None


async def test_the_file_store_keeps_the_contract(tmp_path: Path) -> None:
    def store() -> FileStore:
        return FileStore(StateFile(tmp_path / "designations.json", stamp=lambda: "now"), lambda _text: None)

    same = store()
    await agrees_with_the_contract(same, same)
    assert await store().read("dns") == await same.read("dns")


@pytest.mark.pg
async def test_the_shared_store_keeps_the_contract(database: str) -> None:
    one, two = PostgresStore(CLUSTER, database), PostgresStore(CLUSTER, database)
    other = PostgresStore("another", database)
    try:
        await agrees_with_the_contract(one, two)
        assert await other.read("dns") is None
    finally:
        for store in (one, two, other):
            await store.close()


@pytest.mark.pg
async def test_only_one_of_many_at_once_decides(database: str) -> None:
    stores = [PostgresStore(CLUSTER, database) for _ in range(6)]
    try:
        for epoch in range(1, 8):
            won = await asyncio.gather(
                *(store.swap("dns", epoch - 1, decision(f"api{n}", epoch)) for n, store in enumerate(stores))
            )
            assert sorted(won) == [False] * 5 + [True]
    finally:
        for store in stores:
            await store.close()


class Careless(PostgresStore):
    """Reads, compares, and then writes without comparing."""

    async def swap(self, name: str, expected_epoch: int, fresh: Remembered) -> bool:
        held_ = await self.read(name)
        if (held_.epoch if held_ else 0) != expected_epoch:
            return False
        return await super().swap(name, held_.epoch if held_ else 0, fresh) or await self._overwrites(name, fresh)

    async def _overwrites(self, name: str, fresh: Remembered) -> bool:
        held_ = await self.read(name)
        return await super().swap(name, held_.epoch if held_ else 0, fresh)


@pytest.mark.pg
async def test_several_decide_at_once_when_the_statement_does_not_compare(database: str) -> None:
    """The negative control of the test above."""
    stores = [Careless(CLUSTER, database) for _ in range(6)]
    try:
        for epoch in range(1, 21):
            won = await asyncio.gather(
                *(store.swap("dns", epoch - 1, decision(f"api{n}", epoch)) for n, store in enumerate(stores))
            )
            if sum(won) > 1:
                return
        raise AssertionError("reading first and writing later never let two of them win")
    finally:
        for store in stores:
            await store.close()


async def test_a_database_that_is_away_is_an_error_that_hides_the_password() -> None:
    store = PostgresStore(CLUSTER, "postgresql://user:hush@127.0.0.1:9/x?sslmode=disable")
    with pytest.raises(StateError) as caught:
        await store.read("dns")
    assert "hush" not in str(caught.value) + repr(store)


NO_ADDRESSES = [
    "hush",
    "postgresql://user:hu/sh@127.0.0.1/x",
    "postgresql://user:hush@127.0.0.1:99999/x?sslmode=disable",
]


@pytest.mark.parametrize("dsn", NO_ADDRESSES)
async def test_an_address_that_is_none_is_an_error_that_repeats_nothing_of_it(dsn: str) -> None:
    for work in (PostgresStore(CLUSTER, dsn).read("dns"), seen(CLUSTER, dsn)):
        with pytest.raises(StateError, match="cannot be used") as caught:
            await work
        assert "hu" not in str(caught.value)


class Broken(PostgresStore):
    """Its connection fails in a way of the test's."""

    how: Exception

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        raise self.how


@pytest.mark.parametrize("kind", [asyncpg.InternalClientError, asyncpg.ProtocolError, asyncpg.InterfaceError])
async def test_a_connection_that_breaks_within_the_client_is_a_database_that_cannot_be_used(
    kind: type[Exception],
) -> None:
    store = Broken(CLUSTER, "postgresql:///x")
    store.how = kind("got result for unknown protocol state 3")
    with pytest.raises(StateError, match="cannot be used"):
        await store.read("dns")


@pytest.mark.pg
async def test_two_balancers_agree_on_one_node(database: str) -> None:
    shared: dict[str, Any] = {"designated": {"dns": {"store": "postgres"}}}
    async with nodes("api1", "api2") as fakes, AsyncExitStack() as stack:
        balancers = []
        for _ in range(2):
            control = await stack.enter_async_context(rig(fakes, start=False, workers=1, **shared))
            secret = control.folder / "dsn"
            secret.write_text(database)
            secret.chmod(0o600)
            control.config["state"]["database"] = {"file": str(secret)}
            control.write_config()
            await control.start()
            balancers.append(control)
        one, two = balancers
        await until_held(one, "api1", 1)
        await until_held(two, "api1", 1)
        await one.post("/v1/designations/dns", node="api2")
        await until_held(two, "api2", 2)
        await two.post("/v1/designations/dns", node="api1")
        await until_held(one, "api1", 3)


@dataclass
class OneBalancer:
    """A keeper among what it works with; `believed` are the holders that its workers were given, by epoch."""

    store: PostgresStore
    admin: dict[str, Admin] = field(default_factory=lambda: dict.fromkeys(("api1", "api2", "api3"), Admin.ENABLED))
    holders: dict[str, Holder] = field(default_factory=dict)
    believed: list[Holder] = field(default_factory=list)

    def __post_init__(self) -> None:
        dns = Designated(order=tuple(self.admin), store="postgres")
        self.config = SimpleNamespace(designated={"dns": dns}, node_map=self.admin)
        clock = Clock(now=lambda: datetime.now(UTC), monotonic=time.monotonic)
        self.keeper = DesignationKeeper(
            site=cast("Site", self),
            prober=cast("Prober", self),
            events=EventLog(Path("unwritten"), clock=clock.now),
            clock=clock,
            store_for=lambda _config, _item: self.store,
        )

    @property
    def snapshot(self) -> Any:
        """See Site."""
        return SimpleNamespace(nodes=[SimpleNamespace(name=name, admin=admin) for name, admin in self.admin.items()])

    def seen(self, _name: str) -> Any:
        """See Prober: all are healthy."""
        return SimpleNamespace(state=SimpleNamespace(health=Health.HEALTHY))

    def published_designations(self) -> list[Designation]:
        """See Site."""
        return [Designation("dns", tuple(self.admin), holder.node, holder.epoch) for holder in self.believed[-1:]]

    async def refresh(self) -> None:
        """See Site."""
        self.believed.append(self.holders["dns"])

    async def look(self, *drained: str) -> None:
        """Decide once, with these nodes drained."""
        self.admin = {name: Admin.DRAINED if name in drained else Admin.ENABLED for name in self.admin}
        await self.keeper._look()


async def epochs_with_two_holders(dsn: str, kind: type[PostgresStore], rounds: int) -> list[int]:
    """Two balancers fail over at once, each to a node that the other one does not see."""
    one, two = OneBalancer(kind(CLUSTER, dsn)), OneBalancer(kind(CLUSTER, dsn))
    try:
        for _ in range(rounds):
            await one.keeper.appoint("dns", "api1", "root", "") if one.believed else await one.look()
            await two.look()
            await asyncio.gather(one.look("api1", "api3"), two.look("api1", "api2"))
    finally:
        await one.store.close()
        await two.store.close()
    assert one.believed[-1].epoch >= rounds
    nodes_of: dict[int, set[str | None]] = {}
    for holder in one.believed + two.believed:
        nodes_of.setdefault(holder.epoch, set()).add(holder.node)
    return [epoch for epoch, names in nodes_of.items() if len(names) > 1]


@pytest.mark.pg
async def test_two_balancers_never_take_different_nodes_for_the_holder_of_one_epoch(database: str) -> None:
    assert not await epochs_with_two_holders(database, PostgresStore, 20)


@pytest.mark.pg
async def test_two_balancers_would_take_different_nodes_if_the_statement_did_not_compare(database: str) -> None:
    """The negative control of the test above."""
    assert await epochs_with_two_holders(database, Careless, 20)
