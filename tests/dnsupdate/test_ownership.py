"""Records that are not ours stay; of ours, not too many go at once."""

from pathlib import Path

import pytest

from tests.dnsupdate.servers import FORWARD, Target
from tests.dnsupdate.site import a, foreign, host, site, zone_of

pytestmark = pytest.mark.pg


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


async def test_deletions_are_held_however_small_the_batches_are(practice: Target, dsn: str, tmp_path: Path) -> None:
    async with site(practice, dsn, tmp_path, target={"batch": 10}) as one:
        await one.ping(*(host(f"compute{n}", f"192.0.2.{n}") for n in range(1, 101)))
        await one.rest()
        await one.gone(*(f"compute{n}" for n in range(1, 51)))
        await one.rest()
        assert len(one.forward()) == 80  # up to the limit they go, the rest is held
        assert "30 hosts would lose" in (await one.state("compute30"))
        await one.gone(*(f"compute{n}" for n in range(61, 63)))  # another day, and still held
        await one.rest()
        assert len(one.forward()) == 80


async def test_names_of_ours_without_a_host_count_as_hosts_and_are_held_too(
    practice: Target, dsn: str, tmp_path: Path
) -> None:
    async with site(practice, dsn, tmp_path) as one:
        for number in range(21):
            zone_of(practice).put(f"lost{number}.{FORWARD}", 60, "A", "192.0.2.50")
            zone_of(practice).put(f"_dnsupdate.lost{number}.{FORWARD}", 60, "TXT", '"v=1 o=xarv1"')
        await one.rest()
        assert len(one.forward()) == 21
        held = await one.db.fetch("SELECT DISTINCT last_error FROM dns_dirty WHERE state = 'held'")
        assert [row["last_error"] for row in held] == [
            "21 hosts and names without a host would lose all their records, the limit is 20; "
            "`arv-balance dns release main` lets it go"
        ]
        await one.db.execute("UPDATE dns_dirty SET released = true, not_before = '-infinity' WHERE state = 'held'")
        await one.rest()
        assert one.forward() == set()
