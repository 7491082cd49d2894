"""What the database says is what the server has: hosts that come, change, share names and go."""

from pathlib import Path

import pytest

from tests.dnsupdate.servers import FORWARD, REVERSE, Target
from tests.dnsupdate.site import FORWARD_ONLY, a, forward_only, host, ptr, site

pytestmark = pytest.mark.pg


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
