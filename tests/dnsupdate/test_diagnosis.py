"""What can go wrong between us and a name server, provoked, with the words that an operator reads."""

import asyncio
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.message
import dns.rcode
import pytest

from dnsupdate.diagnosis import Diagnosis, Kind
from dnsupdate.exchange import Channel, Peer
from dnsupdate.update import Add, Delete, Update
from tests.dnsupdate.servers import CLASSLESS, FORWARD, REVERSE, real, wall
from tests.support.nameservers import KEY
from tests.support.programs import need


def add(name: str, zone: str = FORWARD) -> Update:
    return Update(zone, (), (Delete(name, "A"), Add(name, "A", 60, ("192.0.2.1",))))


async def told(peer: Peer, update: Update, clock: Callable[[], float] = wall) -> Diagnosis:
    async with Channel(peer, clock) as channel:
        return (await channel.update(update))[0].diagnosis


@asynccontextmanager
async def answering(rcode: int, tsig_error: int | None = None) -> AsyncIterator[Peer]:
    """A server on TCP that answers every message with a code, unsigned; with `tsig_error` as RFC 8945 has it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        wire = refusal(await reader.readexactly(size), rcode, tsig_error)
        writer.write(struct.pack("!H", len(wire)) + wire)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Peer(address="127.0.0.1", port=server.sockets[0].getsockname()[1], key=KEY, timeout_s=10)


def refusal(wire: bytes, rcode: int, tsig_error: int | None) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(wire, keyring=False))
    reply.tsig, reply.want_tsig_sign = None, False
    reply.set_rcode(dns.rcode.Rcode(rcode))
    said = reply.to_wire()
    if tsig_error is None:
        return said
    # Key name, type, class, TTL, then algorithm, time, fudge, no MAC, original id, error, no other data.
    algorithm = b"\x0bhmac-sha256\x00"
    data = algorithm + bytes(6) + struct.pack("!HH", 300, 0) + wire[:2] + struct.pack("!HH", tsig_error, 0)
    record = b"\x03upd\x00" + struct.pack("!HHIH", 250, 255, 0, len(data)) + data
    return said[:10] + struct.pack("!H", 1) + said[12:] + record


ANSWERS = [
    (4, None, Kind.UNABLE, "cannot do updates (NOTIMP): NSD and Unbound never can: send to the primary"),
    (1, None, Kind.UNABLE, "does not understand the message (FORMERR): something between may change it"),
    (9, 22, Kind.KEY, "does not accept signatures as short as ours (BADTRUNC)"),
    (9, 17, Kind.KEY, "does not know key upd. with that algorithm"),
    (9, 16, Kind.KEY, "has another secret for key upd. (BADSIG): copy the key file anew"),
    (9, None, Kind.ZONE, f"is not the primary of zone {FORWARD}"),
    (10, None, Kind.ZONE, f"a name is outside of zone {FORWARD} (NOTZONE)"),
    (5, None, Kind.REFUSED, "refuses without saying whom it believes us to be (REFUSED, unsigned)"),
    (2, None, Kind.UNKNOWN, f"could not do it for zone {FORWARD} (SERVFAIL)"),
    (11, None, Kind.UNKNOWN, "answered DSOTYPENI"),
    (0, None, Kind.UNKNOWN, "answered NOERROR without a valid signature; not believed"),
    (8, None, Kind.UNKNOWN, "answered NXRRSET without a valid signature; not believed"),
]


@pytest.mark.parametrize(("rcode", "tsig_error", "kind", "words"), ANSWERS)
async def test_an_unsigned_answer_is_explained_and_settles_nothing(
    rcode: int, tsig_error: int | None, kind: Kind, words: str
) -> None:
    async with answering(rcode, tsig_error) as peer:
        diagnosis = await told(peer, add(f"a.{FORWARD}"))
    assert (diagnosis.kind, diagnosis.surely_not_applied) == (kind, False)
    assert f"{peer.name} {words}" in str(diagnosis) or words in str(diagnosis)


async def test_a_closed_port_says_that_nothing_listens_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        peer = Peer(address="127.0.0.1", port=bound.getsockname()[1], key=KEY, timeout_s=10)
        diagnosis = await told(peer, add(f"a.{FORWARD}"))
    assert str(diagnosis) == f"nothing listens at {peer.name}: is the server running, and on this address and port?"
    assert diagnosis.surely_not_applied


_ALONE = """
import asyncio, time
from dnsupdate.exchange import Channel, Peer
from dnsupdate.update import Update
async def main():
    async with Channel(Peer(address="127.0.0.1", port=53, timeout_s=2), time.monotonic) as channel:
        (reply,) = await channel.update(Update("cluster.example."))
    print(reply.diagnosis, reply.diagnosis.surely_not_applied)
asyncio.run(main())
"""


def test_an_address_without_a_route_says_so() -> None:
    # A network namespace of its own: not even loopback is up.
    command = [need("unshare"), "--user", "--map-root-user", "--net", sys.executable, "-P", "-c", _ALONE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "127.0.0.1 cannot be reached: look at the route and the address True\n", done.stderr


async def test_a_journal_that_bind_cannot_write_or_replay_is_a_servfail_that_points_at_it() -> None:
    with real("bind") as target:
        assert target.process is not None
        data = target.process.folder / "data"
        (data / f"{REVERSE}zone.jnl").mkdir()
        unwritable = await told(target.peer(), add(f"a.{REVERSE}", REVERSE))
        assert (unwritable.kind, unwritable.seen.signed) == (Kind.UNKNOWN, True)
        assert f"could not do it for zone {REVERSE} (SERVFAIL): BIND: journal not writable" in str(unwritable)
        assert (await told(target.peer(), add(f"a.{CLASSLESS}", CLASSLESS))).is_applied
        assert (await told(target.peer(), add(f"a.{FORWARD}"))).is_applied
        target.process.stop(signal.SIGKILL)
        zone = data / f"{FORWARD}zone"
        zone.write_text(zone.read_text().replace(" 1 3600", " 5000 3600"))
        target.process.start()
        edited = await told(target.peer(), add(f"b.{FORWARD}"))
    assert "(SERVFAIL): BIND: journal not writable or out of sync with the zone file, see its log" in str(edited)
