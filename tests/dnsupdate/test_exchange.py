"""An exchange ends in a diagnosis, whatever the server, the network or somebody in between does."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import dns.flags
import dns.message
import dns.update
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsupdate.authority import Fault, Faults
from dnsupdate.diagnosis import TABLE, Context, Diagnosis, Failure, Kind, Seen, diagnose
from dnsupdate.errors import KeyFileError
from dnsupdate.exchange import Channel, Peer
from dnsupdate.keys import ALGORITHMS, Key, parse, read
from dnsupdate.message import TooBigError, dns_key, update_wire
from dnsupdate.update import Add, Delete, NoName, NoRRset, Present, Update, nsupdate_script
from tests.dnsupdate.servers import FORWARD, Target, builtin, wall
from tests.support.nameservers import KEY, OTHER_KEY, key_text, write_key
from tests.support.ports import free_port
from tests.support.postgres import until

NAME = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True).map(lambda label: f"{label}.{FORWARD}")


def add(name: str, data: str = "192.0.2.1", *needed: object, zone: str = FORWARD, rdtype: str = "A") -> Update:
    return Update(zone, tuple(needed), (Delete(name, rdtype), Add(name, rdtype, 60, (data,))))  # type: ignore[arg-type]


async def one(peer: Peer, update: Update, clock: Callable[[], float] = wall) -> Diagnosis:
    async with Channel(peer, clock) as channel:
        return (await channel.update(update))[0].diagnosis


async def kind(peer: Peer, update: Update, clock: Callable[[], float] = wall) -> Kind:
    async with Channel(peer, clock) as channel:
        return (await channel.update(update))[0].diagnosis.kind


async def test_an_update_is_applied_and_its_signature_checked(server: Target) -> None:
    assert await kind(server.peer(), add(f"applied.{FORWARD}")) is Kind.APPLIED
    assert f"applied.{FORWARD} 60 A 192.0.2.1" in server.records(FORWARD)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_each_algorithm_signs_and_verifies(algorithm: str) -> None:
    from dnsupdate.authority import Authority
    from dnsupdate.zone import Zone

    key = Key("k.", algorithm, b"s" * 64)
    async with Authority([Zone(FORWARD)], [key], clock=wall).serve() as port:
        assert await kind(Peer(address="127.0.0.1", port=port, key=key), add(f"a.{FORWARD}")) is Kind.APPLIED


PREREQUISITES = [
    ([NoName(f"pre.{FORWARD}")], "YXDOMAIN"),
    ([NoRRset(f"pre.{FORWARD}", "A")], "YXRRSET"),
    ([Present(f"pre.{FORWARD}", "A", ("192.0.2.9",))], "NXRRSET"),
    ([Present(f"nobody.{FORWARD}", "A", ("192.0.2.1",))], "NXRRSET"),
]


@pytest.mark.parametrize(("needed", "rcode"), PREREQUISITES)
async def test_a_prerequisite_that_fails_changes_nothing_and_names_its_code(
    server: Target, needed: list[object], rcode: str
) -> None:
    assert await kind(server.peer(), add(f"pre.{FORWARD}")) is Kind.APPLIED
    async with Channel(server.peer(), wall) as channel:
        (reply,) = await channel.update(add(f"never.{FORWARD}", "192.0.2.1", *needed))
    assert (reply.diagnosis.kind, reply.diagnosis.seen.rcode) == (Kind.PREREQUISITE, rcode)
    assert not any(line.startswith("never.") for line in server.records(FORWARD))


async def test_many_messages_on_one_connection_are_each_answered(server: Target) -> None:
    names = [f"pipe{number}.{FORWARD}" for number in range(60)]
    async with Channel(server.peer(), wall) as channel:
        replies = await channel.update(*(add(name) for name in names))
        found = await channel.query(*((name, "A") for name in names))
    assert {reply.diagnosis.kind for reply in replies} == {Kind.APPLIED}
    assert all(reply.answer is not None and reply.answer.message is not None for reply in found)
    assert all(reply.answer.message.answer for reply in found)  # type: ignore[union-attr]


async def test_a_probe_changes_nothing(server: Target) -> None:
    before = server.records(FORWARD)
    assert await kind(server.peer(), Update(FORWARD, (NoName(f"free.{FORWARD}"),))) is Kind.APPLIED
    assert server.records(FORWARD) == before


FAULTS = [
    (Fault("drop"), Kind.UNKNOWN, "may still apply it"),
    (Fault("close"), Kind.UNKNOWN, "closed the connection"),
    (Fault("unsigned"), Kind.UNKNOWN, "not believed"),
    (Fault("badtime"), Kind.CLOCK, "run NTP"),
    (Fault("refuse"), Kind.REFUSED, "refuses the change"),
    (Fault("servfail"), Kind.UNKNOWN, "SERVFAIL"),
]


@pytest.mark.parametrize(("fault", "expected", "words"), FAULTS)
async def test_each_fault_of_the_embedded_server_has_its_diagnosis(fault: Fault, expected: Kind, words: str) -> None:
    faults = Faults()
    faults.queue.append(fault)
    async with builtin(faults) as target:
        diagnosis = await one(target.peer(timeout_s=0.3 if fault.kind == "drop" else 10), add(f"a.{FORWARD}"))
        assert diagnosis.kind is expected
        assert words in str(diagnosis)
        assert target.hosts(FORWARD) == set()
        assert await kind(target.peer(), add(f"a.{FORWARD}")) is Kind.APPLIED


async def test_a_late_update_is_applied_after_newer_ones() -> None:
    faults = Faults()
    faults.queue.append(Fault("late", 1.5))
    async with builtin(faults) as target:
        assert await kind(target.peer(timeout_s=0.1), add(f"a.{FORWARD}", "192.0.2.1")) is Kind.UNKNOWN
        assert await kind(target.peer(), add(f"a.{FORWARD}", "192.0.2.2")) is Kind.APPLIED
        await until(lambda: target.hosts(FORWARD) == {f"a.{FORWARD} 60 A 192.0.2.1"})


@asynccontextmanager
async def liar(answer: Callable[[bytes], bytes | None], *, raw: bool = False) -> AsyncIterator[Peer]:
    """A server on TCP that answers what it is told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        said = answer(await reader.readexactly(size))
        if said is None:
            writer.transport.abort()
            return
        writer.write(said if raw else struct.pack("!H", len(said)) + said)
        with suppress(ConnectionError):  # who does not believe it does not stay
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Peer(address="127.0.0.1", port=server.sockets[0].getsockname()[1], key=KEY, timeout_s=10)


def forged(wire: bytes, rcode: int = 0) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(wire, keyring=False))
    reply.tsig, reply.want_tsig_sign = None, False
    reply.set_rcode(dns.rcode.Rcode(rcode))
    return reply.to_wire()


def wrongly_signed(wire: bytes) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(wire, keyring=False))
    reply.use_tsig(dns_key(Key("upd.", "hmac-sha256", b"guess" * 8)))
    return reply.to_wire()


@pytest.mark.parametrize("rcode", [0, 3, 5, 6, 7, 8, 9, 10])
async def test_a_forged_unsigned_answer_never_counts_as_applied_or_as_not_applied(rcode: int) -> None:
    async with liar(lambda wire: forged(wire, rcode)) as peer, Channel(peer, wall) as channel:
        diagnosis = (await channel.update(add(f"a.{FORWARD}")))[0].diagnosis
    assert not diagnosis.is_applied
    assert not diagnosis.surely_not_applied
    assert diagnosis.kind is not Kind.PREREQUISITE


async def test_an_answer_signed_with_a_guessed_key_is_not_believed() -> None:
    async with liar(wrongly_signed) as peer:
        assert await kind(peer, add(f"a.{FORWARD}")) is Kind.UNKNOWN


async def test_an_old_answer_sent_again_is_not_believed() -> None:
    kept: list[bytes] = []
    async with builtin() as target:
        async with Channel(target.peer(), wall) as channel:
            await channel.update(add(f"a.{FORWARD}"))
        assert target.authority is not None

        async def record(wire: bytes) -> None:
            assert target.authority is not None
            kept.extend(await target.authority.answer(wire))

        from dnsupdate.message import update_request

        request = update_request(add(f"b.{FORWARD}"), 7, key=KEY, fudge_s=60, clock=wall)
        await record(request.wire)
    async with liar(lambda wire: wire[:2] + kept[0][2:]) as peer:
        assert await kind(peer, add(f"b.{FORWARD}")) is Kind.UNKNOWN


NETWORK: list[tuple[Callable[[bytes], bytes | None], Failure]] = [
    (lambda _: None, Failure.RESET),
    (lambda _: b"", Failure.CLOSED),
    (lambda wire: struct.pack("!H", len(wire) + 1) + wire[:2] + b"\x80" + wire[3:], Failure.CLOSED),
    (lambda _: b"\x00", Failure.CLOSED),
    (lambda wire: struct.pack("!H", 500) + wire[:20], Failure.CLOSED),
    (lambda _: struct.pack("!H", 20) + b"HTTP/1.1 400 Bad Req", Failure.GARBAGE),
    (lambda wire: struct.pack("!H", 14) + wire[:2] + b"\xff" * 12, Failure.GARBAGE),
    (lambda wire: struct.pack("!H", len(wire)) + wire, Failure.GARBAGE),
]


@pytest.mark.parametrize(("answer", "failure"), NETWORK)
async def test_a_broken_answer_is_unknown_never_applied(
    answer: Callable[[bytes], bytes | None], failure: Failure
) -> None:
    async with liar(answer, raw=True) as peer, Channel(peer, wall) as channel:
        diagnosis = (await channel.update(add(f"a.{FORWARD}")))[0].diagnosis
    assert diagnosis.kind is Kind.UNKNOWN
    if failure is Failure.RESET:
        assert diagnosis.seen.failure in (Failure.RESET, Failure.CLOSED)
    else:
        assert diagnosis.seen.failure is failure


async def test_a_closed_port_and_a_full_backlog_are_surely_not_applied() -> None:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        peer = Peer(address="127.0.0.1", port=port, key=KEY, timeout_s=0.3)
        assert await kind(peer, add(f"a.{FORWARD}")) is Kind.NOT_SENT
        bound.listen(0)
        filler = [socket.socket() for _ in range(4)]
        try:
            for one_ in filler:
                one_.setblocking(False)
                one_.connect_ex(("127.0.0.1", port))
            diagnosis = await one(peer, add(f"a.{FORWARD}"))
        finally:
            for one_ in filler:
                one_.close()
    assert diagnosis.seen.failure is Failure.CONNECT_TIMEOUT
    assert diagnosis.surely_not_applied


async def test_a_server_that_dribbles_is_given_up_in_time() -> None:
    async def dribble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"\xff")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.transport.abort()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(dribble, "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        peer = Peer(address="127.0.0.1", port=server.sockets[0].getsockname()[1], key=KEY, timeout_s=0.3)
        diagnosis = await one(peer, add(f"a.{FORWARD}"))
        await ended.wait()
    assert (diagnosis.kind, diagnosis.seen.failure) == (Kind.UNKNOWN, Failure.TIMEOUT)


async def test_a_signed_answer_to_another_question_is_not_believed() -> None:
    def other(wire: bytes) -> bytes:
        message = dns.message.from_wire(wire, keyring=dns_key(KEY))
        message.id ^= 1
        reply = dns.message.make_response(message)
        return reply.to_wire()

    async with liar(other) as peer:
        diagnosis = await one(peer, add(f"a.{FORWARD}"))
    assert (diagnosis.kind, diagnosis.seen.failure) == (Kind.UNKNOWN, Failure.GARBAGE)


async def test_a_channel_opens_again_after_the_server_went_away() -> None:
    async with Channel(Peer(address="127.0.0.1", port=1, key=KEY, timeout_s=0.2), wall) as channel:
        assert (await channel.update(add(f"a.{FORWARD}")))[0].diagnosis.surely_not_applied
        async with builtin(port=free_port()) as target:
            channel.peer = target.peer()
            assert (await channel.update(add(f"a.{FORWARD}")))[0].diagnosis.is_applied
        assert not (await channel.update(add(f"b.{FORWARD}")))[0].diagnosis.is_applied
        async with builtin(port=target.port):
            assert (await channel.update(add(f"c.{FORWARD}")))[0].diagnosis.is_applied


async def test_cancelling_an_exchange_leaves_no_connection_behind(no_leaked_tasks: None) -> None:
    faults = Faults()
    faults.queue.append(Fault("drop"))
    async with builtin(faults) as target, Channel(target.peer(timeout_s=30), wall) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await channel.update(add(f"a.{FORWARD}"))
        assert (await channel.update(add(f"a.{FORWARD}")))[0].diagnosis.is_applied


def test_a_message_that_cannot_be_sent_is_refused_before_it_is() -> None:
    operations = tuple(Add(f"a{number}.{FORWARD}", "TXT", 60, ('"' + "x" * 250 + '"',)) for number in range(300))
    with pytest.raises(TooBigError):
        update_wire(Update(FORWARD, (), operations), 1)


DELETES = st.builds(Delete, NAME, st.just("A"))
ADDS = st.builds(Add, NAME, st.just("TXT"), st.just(60), st.just(('"x"',)))


@given(st.lists(NAME, max_size=5), st.lists(st.one_of(DELETES, ADDS), max_size=8))
def test_our_writer_says_what_dnspython_reads(names: list[str], operations: list[Delete | Add]) -> None:
    update = Update(FORWARD, tuple(NoName(name) for name in names), tuple(operations))
    message = dns.message.from_wire(update_wire(update, 4711))
    assert isinstance(message, dns.update.UpdateMessage)
    assert (message.id, str(message.zone[0].name)) == (4711, FORWARD)
    assert [str(rrset.name) for rrset in message.prerequisite] == names
    assert [(str(rrset.name), rrset.deleting is None) for rrset in message.update] == [
        (operation.name, isinstance(operation, Add)) for operation in operations
    ]


def test_the_nsupdate_script_says_the_same() -> None:
    needed = (NoName(f"a.{FORWARD}"), NoRRset(f"b.{FORWARD}", "A"), Present(f"c.{FORWARD}", "TXT", ('"v"',)))
    script = nsupdate_script(
        [Update(FORWARD, needed, (Delete(f"a.{FORWARD}", "A"), Add(f"a.{FORWARD}", "A", 60, ("192.0.2.1",))))]
    )
    assert script.splitlines() == [
        f"zone {FORWARD}",
        f"prereq nxdomain a.{FORWARD}",
        f"prereq nxrrset b.{FORWARD} IN A",
        f'prereq yxrrset c.{FORWARD} IN TXT "v"',
        f"update delete a.{FORWARD} A",
        f"update add a.{FORWARD} 60 IN A 192.0.2.1",
        "send",
    ]


@pytest.mark.parametrize("row", TABLE)
def test_every_line_of_the_table_is_reached_and_has_words(row: object) -> None:
    line = next(line for line in TABLE if line is row)
    seen = Seen(line.failure, (line.rcode or ("WHATEVER",))[0], line.tsig_error or "", bool(line.signed))
    found = diagnose(seen, Context(server="ns", zone="z.", key="k.", timeout_s=5))
    assert found.kind is line.kind
    assert "{" not in str(found)


def test_a_key_file_of_tsig_keygen_is_read(tmp_path: object) -> None:
    import pathlib

    folder = pathlib.Path(str(tmp_path))
    path = write_key(folder)
    assert read(path) == KEY
    assert "secret" not in repr(KEY)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="everybody may read it"):
        read(path)


BAD_KEYS = [
    ("", "no `key"),
    ('key a { algorithm hmac-md5; secret "c2VjcmV0"; };', "hmac-md5"),
    ('key a { algorithm hmac-sha1; secret "c2VjcmV0"; };', "hmac-sha1"),
    ('key a { algorithm rot13; secret "c2VjcmV0"; };', "must be one of"),
    ('key a { algorithm hmac-sha256; secret "c2Vj*cmV0"; };', "not base64"),
    ("key a { algorithm hmac-sha256; };", "no secret"),
    (key_text(KEY) + key_text(OTHER_KEY), "say which"),
]


@pytest.mark.parametrize(("text", "words"), BAD_KEYS)
def test_a_bad_key_file_is_explained_without_its_secret(text: str, words: str) -> None:
    with pytest.raises(KeyFileError, match=words) as caught:
        parse(text)
    assert "c2V" not in str(caught.value)


def test_weak_algorithms_pass_only_when_asked_for() -> None:
    assert parse('key a { algorithm hmac-md5; secret "c2VjcmV0"; };', allow_weak=True).algorithm == "hmac-md5"
