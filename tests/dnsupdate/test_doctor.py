"""The doctor finds what is wrong with a target's servers, says how to mend it, and changes nothing."""

import asyncio
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dnsupdate.authority import Authority
from dnsupdate.doctor import Doctor, Finding
from dnsupdate.exchange import Peer
from dnsupdate.keys import Key
from dnsupdate.zone import Zone
from tests.dnsupdate.servers import CLASSLESS, FORWARD, REVERSE, REVERSE6, ZONES, Target, builtin, wall
from tests.dnsupdate.site import site_settings, zone_of
from tests.support import nameservers
from tests.support.nameservers import KEY, NameServer
from tests.support.programs import need

STRANGER = Key("stranger.", "hmac-sha256", b"z" * 32)


async def examine(
    target: Target,
    folder: Path,
    *,
    transfer: Key = KEY,
    clock: Callable[[], float] = wall,
    write: bool = False,
    **more: Any,
) -> list[Finding]:
    peer = target.peer(fudge_s=60)
    transfer_peer = Peer(address=peer.address, port=peer.port, key=transfer, timeout_s=10)
    loop = asyncio.get_running_loop()
    doctor = Doctor(
        "main",
        site_settings(target, folder, target=more),
        peers=(peer,),
        transfer_peers=(transfer_peer,),
        wall=clock,
        clock=loop.time,
    )
    return await doctor.examine(write=write)


def bad(found: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.level, one.subject, one.text) for one in found if one.level != "ok"]


async def test_a_server_in_order_has_no_finding_and_is_left_as_it_was(practice: Target, tmp_path: Path) -> None:
    before = {zone: (zone_of(practice, zone).serial, practice.records(zone)) for zone in ZONES}
    found = await examine(practice, tmp_path)
    assert bad(found) == []
    assert {one.subject for one in found} >= {FORWARD, REVERSE, CLASSLESS, REVERSE6}
    assert {zone: (zone_of(practice, zone).serial, practice.records(zone)) for zone in ZONES} == before


def careless(server: NameServer) -> None:
    """Let updates in by address alone, as well as by the key."""
    if server.kind == "bind":
        by_key, also = "update-policy { grant upd zonesub ANY; };", "allow-update { key upd; 127.0.0.1; };"
        file = server.folder / "named.conf"
    elif server.kind == "knot":
        by_key, also = "acl: [upd]", "acl: [upd, anybody]"
        file = server.folder / "knot.conf"
        text = file.read_text()
        file.write_text(
            text.replace("acl:\n", "acl:\n  - id: anybody\n    address: 127.0.0.1\n    action: update\n", 1)
        )
    else:
        for zone in ZONES:
            command = [need("pdnsutil"), f"--config-dir={server.folder}", "set-meta", zone.rstrip(".")]
            subprocess.run([*command, "TSIG-ALLOW-DNSUPDATE"], check=True, capture_output=True)
        return
    text = file.read_text()
    assert by_key in text
    file.write_text(text.replace(by_key, also))


@pytest.mark.parametrize("kind", ["bind", "knot", pytest.param("powerdns", marks=pytest.mark.slow)])
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_server_that_takes_updates_by_address_alone_is_a_warning_and_its_zones_stay(
    kind: str, is_open: bool, tmp_path: Path
) -> None:
    makes = {"bind": nameservers.bind, "knot": nameservers.knot, "powerdns": nameservers.powerdns}
    server = makes[kind](tmp_path / kind, ZONES)
    if is_open:
        careless(server)
    with nameservers.running(server) as process:
        target = Target(kind, process.port, process=process)
        before = {zone: (process.dig(zone, "SOA"), target.records(zone)) for zone in ZONES}
        found = await examine(target, tmp_path)
        assert {zone: (process.dig(zone, "SOA"), target.records(zone)) for zone in ZONES} == before
    told = {one.subject for one in found if one.level == "warning" and one.text.startswith("updates are taken without")}
    assert told == (set(ZONES) if is_open else set())
    refused = [one for one in found if one.text == "updates without a key are refused"]
    assert len(refused) == (0 if is_open else len(ZONES))


async def test_a_test_that_writes_removes_what_it_made(practice: Target, tmp_path: Path) -> None:
    found = await examine(practice, tmp_path, write=True)
    assert [one.text for one in found if "can be made" in one.text] == [
        f"{rdtype} records can be made and removed" for rdtype in ("A", "AAAA", "TXT")
    ]
    assert zone_of(practice).serial > 1
    assert practice.records(FORWARD) == set()


async def test_a_key_that_may_not_transfer_is_a_warning_with_its_consequence(practice: Target, tmp_path: Path) -> None:
    found = [one for one in await examine(practice, tmp_path, transfer=STRANGER) if one.level == "warning"]
    assert {one.subject for one in found} == set(ZONES)
    assert "does not know key stranger." in found[0].text
    assert "names that we lost track of would never be deleted" in found[0].text
    assert all(one.mends for one in found)


@pytest.mark.parametrize(("skew_s", "words"), [(-20, "20 s behind the server's"), (20, "20 s ahead of the server's")])
async def test_a_clock_that_goes_wrong_is_told_before_anything_fails(
    practice: Target, tmp_path: Path, skew_s: float, words: str
) -> None:
    while True:  # until all of it falls into one second
        began = int(wall())
        found = bad(await examine(practice, tmp_path, clock=partial(float, began + skew_s)))
        if int(wall()) == began:
            break
    assert found == [("warning", f"clock of 127.0.0.1 port {practice.port}", f"our clock is {words}")]


async def test_other_servers_of_the_zone_that_lag_or_do_not_serve_it_are_found(tmp_path: Path) -> None:
    async with builtin() as target:
        same = Authority([Zone(zone) for zone in ZONES], [], clock=wall)
        ahead = Authority([Zone(zone, serial=17) for zone in ZONES], [], clock=wall)
        empty = Authority([Zone("other.example.")], [], clock=wall)
        async with same.serve() as first, ahead.serve() as second, empty.serve() as third:
            servers = [f"127.0.0.1@{port}" for port in (first, second, third)]
            found = await examine(target, tmp_path, nameservers=servers)
    mine = [(one.level, one.text) for one in found if one.subject == FORWARD and "port" in one.text]
    assert mine == [
        ("ok", f"127.0.0.1 port {first} has serial 1 too"),
        ("warning", f"127.0.0.1 port {second} has serial 17, the primary 1"),
        ("error", f"127.0.0.1 port {third} does not serve it"),
    ]
    assert "a NOTIFY was lost" in next(one.hint for one in found if one.level == "warning")


async def test_an_soa_that_misleads_is_a_warning(tmp_path: Path) -> None:
    misleading = Zone(FORWARD, nameserver="a.misconfigured.dns.server.invalid.", negative_ttl=3600)
    zones = [misleading, *(Zone(zone) for zone in ZONES if zone != FORWARD)]
    authority = Authority(zones, [KEY], clock=wall)
    async with authority.serve() as port:
        found = bad(await examine(Target("builtin", port, authority=authority), tmp_path))
    assert found == [
        ("warning", FORWARD, "a name that was asked for too early stays unknown for 3600 s"),
        ("warning", FORWARD, "its primary by the SOA record is a.misconfigured.dns.server.invalid."),
    ]
