"""What the database says is what the server has, whatever happened in between."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from dnsupdate.authority import Authority, Fault
from dnsupdate.booking import Booking, Lease
from dnsupdate.errors import LeaseLostError
from dnsupdate.sender import Sender
from dnsupdate.zone import Zone
from tests.dnsupdate.builders import SECTION
from tests.dnsupdate.servers import FORWARD, REVERSE, Target, builtin, real
from tests.dnsupdate.site import host, site
from tests.support.ports import free_port
from tests.support.postgres import until

pytestmark = pytest.mark.pg
FORWARD_ONLY = [{"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"}]


def forward_only(**template: Any) -> dict[str, Any]:
    return {"compute": {"records": FORWARD_ONLY, **template}}


def a(name: str, ip: str) -> str:
    return f"{name}.{FORWARD} 60 A {ip}"


def ptr(octet: int, name: str) -> str:
    return f"{octet}.{REVERSE} 60 PTR {name}.{FORWARD}"


def zone_of(server: Target, name: str = FORWARD) -> Zone:
    assert isinstance(server.authority, Authority)
    return next(zone for zone in server.authority.zones.values() if str(zone.origin) == name)


async def test_two_hundred_nodes_are_followed_through_create_swap_rename_and_delete(
    fresh: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(fresh, dsn, tmp_path, target={"brake": {"hosts": 50}}) as one:
        ips = {f"compute{n}": f"192.0.2.{n}" for n in range(1, 201)}

        async def check() -> None:
            await one.rest(30)
            assert one.forward() == {a(name, ip) for name, ip in ips.items()}
            assert one.reverse() == {ptr(int(ip.rpartition(".")[2]), name) for name, ip in ips.items()}

        await one.ping(*(host(name, ip) for name, ip in ips.items()))
        await check()
        if fresh.process is not None:
            assert fresh.process.dig(f"compute7.{FORWARD}") == ["192.0.2.7"]
            assert fresh.process.dig(f"7.{REVERSE}", "PTR") == [f"compute7.{FORWARD}"]
        ips["compute1"], ips["compute2"] = ips["compute2"], ips["compute1"]
        await one.ping(host("compute1", ips["compute1"]))
        await one.ping(host("compute2", ips["compute2"]))
        await check()
        ips["computex"] = ips.pop("compute3")
        await one.ping(host("computex", ips["computex"], uuid="xarv1-7ekkf-compute3"))
        await check()
        for name in [f"compute{n}" for n in range(100, 140)]:
            del ips[name]
        await one.gone(*(f"compute{n}" for n in range(100, 140)))
        await check()

        before = len(one.counting.exchanges)
        await one.ping(*(host(name, ip) for name, ip in ips.items() if name != "computex"))
        await one.db.execute("INSERT INTO dns_dirty (target, node_uuid, gen) SELECT 'main', uuid, gen FROM dns_hosts")
        await check()
        assert len(one.counting.exchanges) == before


async def test_a_swap_in_one_batch_or_in_two_ends_right(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path, target={"batch": 1}) as one:
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.rest()
        await one.ping(host("compute1", "192.0.2.2"))
        await one.ping(host("compute2", "192.0.2.1"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.2"), a("compute2", "192.0.2.1")}
        assert one.reverse() == {ptr(2, "compute1"), ptr(1, "compute2")}


async def test_a_foreign_record_is_never_touched_and_its_host_is_a_conflict(
    fresh: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(fresh, dsn, tmp_path) as one:
        await foreign(fresh, f"compute4.{FORWARD}", "192.0.2.200")
        await one.ping(host("compute4", "192.0.2.4"), *(host(f"compute{n}", f"192.0.2.{n}") for n in (5, 6, 7)))
        for _ in range(8):
            await one.sender.cycle()
        assert a("compute4", "192.0.2.200") in one.forward()
        assert {a("compute5", "192.0.2.5"), a("compute6", "192.0.2.6"), a("compute7", "192.0.2.7")} < one.forward()
        assert "not ours" in await one.state("compute4")
        assert await one.state("compute5") == "published"
        await one.gone("compute4")
        await one.rest()
        assert a("compute4", "192.0.2.200") in one.forward()


async def test_an_adopted_name_is_taken_over(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await foreign(practice, f"compute4.{FORWARD}", "192.0.2.200")
        await one.ping(host("compute4", "192.0.2.4"))
        await one.steps(4)
        await one.db.execute("INSERT INTO dns_adopted VALUES ('main', $1, $2)", FORWARD, f"compute4.{FORWARD}")
        await one.db.execute("UPDATE dns_dirty SET not_before = '-infinity'")
        await one.rest()
        assert one.forward() == {a("compute4", "192.0.2.4")}
        assert await one.db.fetchval("SELECT count(*) FROM dns_adopted") == 0


@pytest.mark.parametrize(("there", "taken"), [("192.0.2.4", True), ("192.0.2.200", False)])
async def test_mode_adopt_takes_over_only_what_is_equal(
    practice: Target, dsn: str, tmp_path: Path, there: str, taken: bool
) -> None:
    async with site(practice, dsn, tmp_path, target={"conflict": "adopt"}) as one:
        await foreign(practice, f"compute4.{FORWARD}", there)
        await one.ping(host("compute4", "192.0.2.4"))
        await one.steps(8)
        assert (await one.state("compute4") == "published") is taken
        assert one.forward() == {a("compute4", there)}


async def foreign(server: Target, name: str, ip: str) -> None:
    """An administrator makes a record by hand."""
    from dnsupdate.exchange import Channel
    from dnsupdate.update import Add, Update
    from tests.dnsupdate.servers import wall

    async with Channel(server.peer(), wall) as channel:
        (reply,) = await channel.update(Update(FORWARD, (), (Add(name, "A", 60, (ip,)),)))
        assert reply.diagnosis.is_applied


async def test_the_newer_of_two_hosts_has_the_name_and_the_other_gets_it_when_it_goes(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await one.ping(host("compute1", "192.0.2.2", uuid="xarv1-7ekkf-newer"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.2")}
        assert "claim is newer" in await one.state("compute1")
        await one.gone("newer")
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1")}
        assert await one.state("compute1") == "published"


async def test_a_shared_set_has_all_hosts_and_loses_each_with_its_host(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    line = {"name": "all.cluster.example.", "each": "ipv4", "type": "A", "data": "{{ item }}", "shared": True}
    async with site(practice, dsn, tmp_path, templates={"compute": {"records": [line]}}) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
        await one.rest()
        assert one.forward() == {a("all", f"192.0.2.{n}") for n in (1, 2, 3)}
        await one.gone("compute2")
        await one.rest()
        assert one.forward() == {a("all", "192.0.2.1"), a("all", "192.0.2.3")}


async def test_too_many_deletions_are_held_until_they_are_released(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 41)))
        await one.rest()
        await one.gone(*(f"compute{n}" for n in range(1, 26)))
        await one.ping(host("compute99", "192.0.2.99"))
        await one.rest()
        assert len(one.forward()) == 41
        assert a("compute99", "192.0.2.99") in one.forward()
        assert "25 hosts would lose all their records, the limit is 20" in await one.state("compute1")
        await one.db.execute("UPDATE dns_dirty SET released = true, not_before = '-infinity' WHERE state = 'held'")
        await one.rest()
        assert len(one.forward()) == 16


@pytest.mark.parametrize("fault", ["drop", "close", "unsigned", "servfail", "late"])
async def test_an_answer_that_leaves_it_open_raises_the_fence_and_the_newest_value_stays(
    dsn: str, tmp_path: Path, fault: str
) -> None:
    async with builtin() as server, site(server, dsn, tmp_path, target={"timeout": "200ms"}) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        epoch = one.sender.status.epoch
        assert server.authority is not None
        server.authority.faults.queue += [Fault(fault, 0.6)] * 2
        await one.ping(host("compute1", "192.0.2.2"))
        await one.steps(2)
        await one.ping(host("compute1", "192.0.2.3"))
        await one.rest()
        await asyncio.sleep(
            0.7 if fault == "late" else 0
        )  # the put-off message is applied now, or refused by the fence
        assert one.forward() == {a("compute1", "192.0.2.3")}
        assert one.reverse() == {ptr(3, "compute1")}
        assert one.sender.status.epoch > epoch


async def test_a_change_that_was_taken_back_while_unknown_is_sent_again(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target={"timeout": "200ms"}) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        assert practice.authority is not None
        practice.authority.faults.queue.append(Fault("stall", 0.3))  # applied, but the answer comes too late
        await one.ping(host("compute1", "192.0.2.2"))
        await one.sender.cycle()
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await until(lambda: one.forward() == {a("compute1", "192.0.2.1")})
        assert one.reverse() == {ptr(1, "compute1")}


async def test_a_thousand_hosts_wait_while_the_server_is_away_and_are_drained_after(dsn: str, tmp_path: Path) -> None:
    port = free_port()
    async with site(Target("builtin", port), dsn, tmp_path, templates=forward_only()) as one:
        await one.ping(*(host(f"compute{n}", f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1000)))
        for _ in range(5):
            await one.ping(*(host(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)))
            await one.sender.cycle()
        assert await one.db.fetchval("SELECT count(*) FROM dns_dirty") == 1000
        assert "nothing listens" in str(one.sender.status.error)
        async with builtin(port=port) as back:
            one.server = back
            await one.rest(30)
            assert one.forward() == {a(f"compute{n}", f"10.1.{n // 250}.{n % 250 + 1}") for n in range(1000)}
        assert (await one.events()).keys() >= {"not-sent", "recovered"}


async def test_a_zone_that_was_emptied_is_filled_again_within_one_look(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        empty = zone_of(practice).copy()
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2)))
        await one.rest()
        zone_of(practice).restore(empty)
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2")}
        assert "its fence is gone" in (await one.events())["zone-reset"]


async def test_a_zone_restored_from_an_old_copy_is_brought_up_to_date(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
        await one.rest()
        old = zone_of(practice).copy()
        await one.sender._stop()
        await one.ping(host("compute1", "192.0.2.11"), host("compute4", "192.0.2.4"))
        await one.gone("compute2")
        await one.rest()
        zone_of(practice).restore(old)
        await one.rest()
        assert one.forward() == {
            a("compute1", "192.0.2.11"), a("compute3", "192.0.2.3"), a("compute4", "192.0.2.4")
        }  # fmt: skip
        assert "epoch 1 instead of 2" in (await one.events())["zone-reset"]


async def test_bind_restored_from_an_old_zone_file_is_brought_up_to_date(dsn: str, tmp_path: Path) -> None:
    with real("bind") as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path) as one:
            await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
            await one.rest()
            server.process.stop()
            data = server.process.folder / "data"
            for journal in data.glob("*.jnl"):
                journal.unlink()  # the zone files are those of the start
            server.process.start()
            await one.rest()
            assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)}
            assert "zone-reset" in await one.events()


async def test_a_record_that_somebody_changed_is_repaired(fresh: Target, dsn: str, tmp_path: Path) -> None:
    from dnsupdate.exchange import Channel
    from dnsupdate.update import Add, Delete, Update
    from tests.dnsupdate.servers import wall

    async with site(fresh, dsn, tmp_path) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
        await one.rest()
        name, other = f"compute1.{FORWARD}", f"compute2.{FORWARD}"
        byhand = Update(FORWARD, (), (Delete(name, "A"), Delete(other, "A"), Add(other, "A", 77, ("192.0.2.99",))))
        async with Channel(fresh.peer(), wall) as channel:
            await channel.update(byhand)
        await one.rest()
        assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)}
        assert "nothing instead of 192.0.2.1" in (await one.events())["drift"]


async def test_a_name_with_our_marker_and_no_host_is_deleted(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        zone_of(practice).put(f"lost.{FORWARD}", 60, "A", "192.0.2.50")
        zone_of(practice).put(f"lost.{FORWARD}", 60, "MX", "10 mail.example.")
        zone_of(practice).put(f"_dnsupdate.lost.{FORWARD}", 60, "TXT", '"v=1 o=xarv1"')
        zone_of(practice).put(f"other.{FORWARD}", 60, "A", "192.0.2.51")
        zone_of(practice).put(f"_dnsupdate.other.{FORWARD}", 60, "TXT", '"v=1 o=xarv2"')
        await one.rest()
        assert one.forward() == {f"lost.{FORWARD} 60 MX 10 mail.example.", a("other", "192.0.2.51")}
        assert f'_dnsupdate.other.{FORWARD} 60 TXT "v=1 o=xarv2"' in practice.records(FORWARD)


async def test_without_the_right_to_transfer_names_are_asked_one_by_one_and_it_is_said(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target={"reconcile": "10ms"}) as one:
        from dataclasses import replace

        work: Any = one.sender._work
        nobody = replace(work._config.peers[0], key=replace(work._config.peers[0].key, secret=b"wrong"))
        work.repair._transfer_peers = (nobody,)
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.rest()
        zone_of(practice).drop(f"compute1.{FORWARD}", "A")
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2")}
        assert "will never be deleted" in (await one.events())["no-transfer"]


async def test_one_host_that_the_server_refuses_does_not_stop_the_others(dsn: str, tmp_path: Path) -> None:
    with real("bind") as server:
        async with site(server, dsn, tmp_path, names={"allow_underscore": True}) as one:
            good = [host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)]
            await one.ping(*good, host("compute_bad", "192.0.2.99"))
            await one.steps(6)
            assert one.forward() == {a(f"compute{n}", f"192.0.2.{n}") for n in range(1, 21)}
            assert "failed" in await one.state("compute_bad")
            assert "check-names" in await one.state("compute_bad")


async def test_a_frozen_zone_fails_its_hosts_and_is_caught_up_when_thawed(dsn: str, tmp_path: Path) -> None:
    with real("bind") as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path) as one:
            await one.ping(host("compute1", "192.0.2.1"))
            await one.rest()
            server.process.control("freeze", REVERSE)
            await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in (1, 2, 3)))
            await one.steps(4)
            assert "rndc thaw" in await one.state("compute2")
            assert a("compute2", "192.0.2.2") in one.forward()
            server.process.control("thaw", REVERSE)
            process = server.process
            await until(lambda: bool(process.dig(REVERSE, "SOA")))
            await one.rest()
            assert one.reverse() == {ptr(n, f"compute{n}") for n in (1, 2, 3)}


async def test_a_host_whose_records_cannot_be_made_keeps_what_it_had(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await one.ping(host("compute1", "10.9.9.9"), host("compute2", "192.0.2.2"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2")}
        assert "no reverse zone for 10.9.9.9" in await one.state("compute1")


@pytest.mark.parametrize("others", [0, 3])
async def test_records_that_fit_in_no_message_fail_their_host_alone(
    practice: Target, dsn: str, tmp_path: Path, others: int
) -> None:
    note = {"name": "{{ fqdn }}.", "type": "TXT", "data": "{{ txt(properties.note) }}", "when": "{{ properties }}"}
    more = {"name": "more.{{ fqdn }}.", "type": "A", "data": "192.0.2.1", "when": "{{ properties }}"}
    templates = {"compute": {"records": [*FORWARD_ONLY, note, {**note, "data": "{{ txt(properties.note, 1) }}"}, more]}}
    async with site(practice, dsn, tmp_path, templates=templates) as one:
        good = [host(f"compute{n}", f"192.0.2.{n}") for n in range(2, 2 + others)]
        await one.ping(host("compute1", "192.0.2.1", properties={"note": "n" * 40_000}), *good)
        await one.rest()
        expected = {a(f"compute{n}", f"192.0.2.{n}") for n in range(2, 2 + others)}
        assert one.forward() - {f"more.compute1.{FORWARD} 60 A 192.0.2.1"} == expected
        assert "octets do not fit in one message" in await one.state("compute1")


async def test_an_absent_host_gets_the_placeholder_and_prefilled_names_are_there_before(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    template = forward_only(absent={"placeholder": "127.40.4.0"}, prefill="compute[1-3]", missing_after="1h")
    async with site(practice, dsn, tmp_path, templates=template) as one:
        await one.store.sweep(missing_after_s=3600, prefill=["compute1", "compute2", "compute3"], domain="")
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "192.0.2.2"))
        await one.rest()
        assert one.forward() == {
            a("compute1", "192.0.2.1"), a("compute2", "192.0.2.2"), a("compute3", "127.40.4.0")
        }  # fmt: skip
        await one.gone("compute1")
        await one.db.execute("UPDATE dns_hosts SET last_ping_at = last_ping_at - interval '2 h'")
        await one.store.sweep(missing_after_s=3600, prefill=[], domain="")
        await one.rest()
        assert one.forward() == {a(f"compute{n}", "127.40.4.0") for n in (1, 2, 3)}
        await one.ping(host("compute2", "192.0.2.2"))
        await one.rest()
        assert a("compute2", "192.0.2.2") in one.forward()


async def test_kept_records_outlive_their_host_and_give_way_to_a_new_one(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, templates=forward_only(absent="keep")) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await one.gone("compute1")
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.1")}
        await one.ping(host("compute1", "192.0.2.5", uuid="xarv1-7ekkf-new"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.5")}


async def test_other_templates_are_applied_to_hosts_that_are_there(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
    async with site(practice, dsn, tmp_path, defaults={"ttl": 30}) as one:
        await one.rest()
        assert one.forward() == {f"compute1.{FORWARD} 30 A 192.0.2.1"}


async def test_a_second_process_takes_over_when_the_lease_ends_and_the_first_can_write_nothing_then(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        second = one.other()
        assert await leads_after_a_cycle(second) is False
        old: Lease = one.sender._lease  # type: ignore[assignment]
        await one.db.execute("UPDATE dns_lease SET until = clock_timestamp() - interval '1 s'")
        assert await leads_after_a_cycle(second) is True
        booking = Booking(contributions={}, settled=frozenset())
        with pytest.raises(LeaseLostError):
            await one.store.book(old, booking, backoff=(1, 1))
        assert await leads_after_a_cycle(one.sender) is False
        await second._stop()


async def leads_after_a_cycle(sender: Sender) -> bool:
    await sender.cycle()
    return sender.status.leads


async def test_a_sender_that_was_overtaken_changes_nothing_at_the_server(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        work: Any = one.sender._work
        second = one.other()
        await one.db.execute("UPDATE dns_lease SET until = '-infinity'")
        await second.cycle()
        from dnsupdate.plan import Change, Guard, RRset
        from dnsupdate.update import apply_changes

        change = Change(
            FORWARD, f"late.{FORWARD}", Guard.ABSENT, (), (RRset("A", 60, ("192.0.2.9",)),), ("A",), frozenset()
        )
        update = apply_changes(FORWARD, [change], work.fences[FORWARD], work._config.policy, 60)
        (reply,) = await work.link.update(update)
        assert reply.diagnosis.seen.rcode == "NXRRSET"
        assert one.forward() == {a("compute1", "192.0.2.1")}
        await second._stop()


async def test_a_database_that_went_back_is_noticed_by_the_fence(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        await one.ping(host("compute1", "192.0.2.1"))
        await one.rest()
        await one.sender._stop()
        await one.db.execute("UPDATE dns_lease SET epoch = 0")
        zone_of(practice).drop(f"xarv1._dnsupdate-fence.{FORWARD}")
        zone_of(practice).put(f"xarv1._dnsupdate-fence.{FORWARD}", 0, "TXT", '"v=1 cluster=xarv1 epoch=9"')
        await one.ping(host("compute1", "192.0.2.2"))
        await one.rest()
        assert one.forward() == {a("compute1", "192.0.2.2")}
        assert one.sender.status.epoch == 10
        assert "older copy" in (await one.events())["fence-ahead"]


async def test_a_wrong_key_loses_nothing_and_is_told_at_every_host(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path) as one:
        from dataclasses import replace

        work: Any = one.sender._work
        good = work.link._peers
        work.link._peers = (replace(good[0], key=replace(good[0].key, secret=b"wrong")),)
        await one.ping(host("compute1", "192.0.2.1"))
        await one.steps(4)
        assert "another secret for key upd." in await one.state("compute1")
        assert (await one.state("compute1")).startswith("failed")
        work.link._peers = good
        await one.rest()
        assert await one.state("compute1") == "published"


async def test_a_zone_that_the_server_does_not_have_stops_only_its_own_hosts(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    zones = [*SECTION["zones"], {"name": "10.in-addr.arpa", "target": "main", "networks": ["10.0.0.0/8"]}]
    async with site(practice, dsn, tmp_path, zones=zones) as one:
        await one.ping(host("compute1", "192.0.2.1"), host("compute2", "10.0.0.2"))
        await one.steps(6)
        assert await one.state("compute1") == "published"
        assert "10.in-addr.arpa. is not a zone's apex" in await one.state("compute2")


async def test_a_stopped_server_delays_and_its_old_messages_do_no_harm(dsn: str, tmp_path: Path) -> None:
    with real("knot") as server:
        assert server.process is not None
        async with site(server, dsn, tmp_path, target={"timeout": "300ms"}) as one:
            await one.ping(host("compute1", "192.0.2.1"))
            await one.rest()
            server.process.signal(signal.SIGSTOP)
            for number in (2, 3, 4):
                await one.ping(host("compute1", f"192.0.2.{number}"))
                await one.steps(2)
            server.process.signal(signal.SIGCONT)
            await one.rest(20)
            assert one.forward() == {a("compute1", "192.0.2.4")}
            assert one.reverse() == {ptr(4, "compute1")}


async def test_ownership_none_leaves_no_marks_and_still_guards_creation(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path, target={"ownership": "none"}) as one:
        await foreign(practice, f"compute4.{FORWARD}", "192.0.2.200")
        await one.ping(host("compute4", "192.0.2.4"), host("compute5", "192.0.2.5"))
        await one.steps(6)
        assert one.forward() == {a("compute4", "192.0.2.200"), a("compute5", "192.0.2.5")}
        assert not any("_dnsupdate." in line for line in practice.records(FORWARD))
        await one.gone("compute5")
        await one.rest()
        assert one.forward() == {a("compute4", "192.0.2.200")}
