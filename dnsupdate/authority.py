"""A small authoritative server with updates, for the demo, tests and laptops: RFC 2136, TSIG, AXFR and IXFR.

Zones live in memory: a target of kind `builtin` is filled from the database again when the fence is missing, like any
server that was reset. `Faults` makes it misbehave on purpose.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TSIG
import dns.rrset
import dns.tsig
import dns.update

from dnsupdate.keys import Key
from dnsupdate.message import dns_key
from dnsupdate.zone import Refused, Zone

logger = logging.getLogger(__name__)
Clock = Callable[[], float]
_TRANSFER_RRS = 500  # a message of a transfer
_SAID = {"refuse": dns.rcode.REFUSED, "servfail": dns.rcode.SERVFAIL}
_TSIG_RR = struct.Struct("!HHIH")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one UPDATE.

    kind: `drop` (no answer, not applied), `stall` (answered `seconds` later), `late` (applied `seconds` later, after
    messages that came behind it, and not answered), `badtime`, `refuse`, `servfail`, `unsigned` (answered NOERROR
    without a signature and not applied), `close`.
    """

    kind: str
    seconds: float = 0.0


class Faults:
    """Chooses a fault for each UPDATE: those in `queue` first, then what `choose` says."""

    def __init__(self, choose: Callable[[], Fault | None] = lambda: None) -> None:
        self.queue: deque[Fault] = deque()
        self.choose = choose

    def next(self) -> Fault | None:
        """Return the fault for the next UPDATE, or None."""
        return self.queue.popleft() if self.queue else self.choose()


@dataclass
class Counters:
    """What the server was asked to do."""

    updates: int = 0
    changes: int = 0
    queries: int = 0
    transfers: int = 0
    seen: list[str] = field(default_factory=list)


class Authority:
    """The server. `zones`: origin to zone; `keys`: who may update and transfer; `clock`: wall time in seconds."""

    def __init__(
        self, zones: Iterable[Zone], keys: Iterable[Key], *, clock: Clock, faults: Faults | None = None
    ) -> None:
        self.zones: Mapping[dns.name.Name, Zone] = {zone.origin: zone for zone in zones}
        self.faults = faults or Faults()
        self.counters = Counters()
        self.port = 0
        self._keys = {dns.name.from_text(key.name): dns_key(key) for key in keys}
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
        """Listen on TCP and UDP; yield the port. Everything that was put off is cancelled at the end."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            server = await asyncio.start_server(self._connection, host, port, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            loop = asyncio.get_running_loop()
            datagrams, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (host, self.port))
            try:
                yield self.port
            finally:
                datagrams.close()
                server.close()
                for writer in tuple(self._writers):
                    writer.transport.abort()
                await server.wait_closed()
                for task in tuple(self._tasks):
                    task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                wire = await reader.readexactly(size)
                for answer in await self.answer(wire):
                    writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, _CloseError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def answer(self, wire: bytes) -> list[bytes]:
        """Return the messages that answer one message; none when it is not answered.

        Raises:
            _CloseError: the connection is to be cut.
        """
        try:
            message = dns.message.from_wire(wire, keyring=False)
        except (dns.exception.DNSException, ValueError, struct.error):
            return []
        if message.flags & dns.flags.QR:
            return []
        if message.had_tsig:
            refused = self._verify(wire, message)
            if refused is not None:
                return [refused]
            message = dns.message.from_wire(wire, keyring=self._keys)
        if message.opcode() == dns.opcode.UPDATE and isinstance(message, dns.update.UpdateMessage):
            return await self._faulty_update(message)
        if message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
            return [self._reply(message, dns.rcode.NOTIMP)]
        if message.question[0].rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
            return self._transfer(message)
        return [self._query(message)]

    def _verify(self, wire: bytes, message: dns.message.Message) -> bytes | None:
        """Return the refusal of a signature that does not hold, else None. Source: RFC 8945 section 5.2."""
        key = self._keys.get(message.keyname) if message.keyname is not None else None
        if key is None or key.algorithm != message.keyalgorithm:
            return self._tsig_refusal(message, dns.rcode.BADKEY, None)
        skew = abs(message.tsig[0].time_signed - int(self._clock())) if message.tsig else 0
        try:
            dns.message.from_wire(wire, keyring=key)
        except dns.tsig.BadTime:
            return self._tsig_refusal(message, dns.rcode.BADTIME, key)
        except dns.exception.DNSException:
            return self._tsig_refusal(message, dns.rcode.BADSIG, None)
        if message.tsig and skew > message.tsig[0].fudge:
            return self._tsig_refusal(message, dns.rcode.BADTIME, key)
        return None

    def _tsig_refusal(self, message: dns.message.Message, error: dns.rcode.Rcode, key: dns.tsig.Key | None) -> bytes:
        """Return NOTAUTH with a TSIG error; only BADTIME is signed, and carries our time."""
        reply = dns.message.make_response(message)
        reply.tsig, reply.want_tsig_sign = None, False
        reply.set_rcode(dns.rcode.NOTAUTH)
        wire = reply.to_wire()
        theirs = message.tsig[0] if message.tsig else None
        if theirs is None or message.keyname is None:
            return wire
        now = int(self._clock())
        other = now.to_bytes(6, "big") if error == dns.rcode.BADTIME else b""
        rdata = dns.rdtypes.ANY.TSIG.TSIG(  # type: ignore[no-untyped-call]
            dns.rdataclass.ANY, dns.rdatatype.TSIG, theirs.algorithm, theirs.time_signed, theirs.fudge, b"",
            message.id, int(error), other,
        )  # fmt: skip
        if key is not None:
            rdata, _ = dns.tsig.sign(wire, key, rdata, theirs.time_signed, theirs.mac)  # type: ignore[no-untyped-call]
        data = rdata.to_wire() or b""
        record = message.keyname.to_digestable() + _TSIG_RR.pack(250, 255, 0, len(data)) + data
        return wire[:10] + struct.pack("!H", 1) + wire[12:] + record

    def _reply(self, message: dns.message.Message, rcode: dns.rcode.Rcode) -> bytes:
        reply = dns.message.make_response(message)
        reply.set_rcode(rcode)
        return reply.to_wire()

    async def _faulty_update(self, message: dns.update.UpdateMessage) -> list[bytes]:
        self.counters.updates += 1
        fault = self.faults.next()
        if fault is None:
            return [self._reply(message, self._update(message))]
        if fault.kind in _SAID:
            return [self._reply(message, _SAID[fault.kind])]
        match fault:
            case Fault("drop"):
                return []
            case Fault("close"):
                raise _CloseError
            case Fault("stall", seconds):
                await asyncio.sleep(seconds)
                return [self._reply(message, self._update(message))]
            case Fault("late", seconds):
                self.later(self._later(message, seconds))
                return []
            case Fault("badtime"):
                key = self._keys.get(message.keyname) if message.keyname is not None else None
                return [self._tsig_refusal(message, dns.rcode.BADTIME, key)]
            case Fault("unsigned"):
                reply = dns.message.make_response(message)
                reply.tsig, reply.want_tsig_sign = None, False
                return [reply.to_wire()]
            case _:
                raise ValueError(f"no fault of kind {fault.kind}")

    def later(self, work: Coroutine[None, None, None]) -> None:
        """Run work beside the connections; what is not done at the end is cancelled."""
        if self._group is None:
            raise RuntimeError("not serving")
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, message: dns.update.UpdateMessage, seconds: float) -> None:
        await asyncio.sleep(seconds)
        rcode = self._update(message)
        logger.info("applied a late update", extra={"action": "late", "rcode": dns.rcode.to_text(rcode)})

    def _update(self, message: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        if not message.had_tsig:
            return dns.rcode.REFUSED
        if len(message.zone) != 1 or message.zone[0].rdtype != dns.rdatatype.SOA:
            return dns.rcode.FORMERR
        zone = self.zones.get(message.zone[0].name)
        if zone is None:
            return dns.rcode.NOTAUTH
        try:
            changed = zone.update(message)
        except Refused as exc:
            return exc.rcode
        self.counters.changes += changed
        return dns.rcode.NOERROR

    def zone_of(self, name: dns.name.Name) -> Zone | None:
        """Return the closest zone that holds a name."""
        holding = [zone for origin, zone in self.zones.items() if name.is_subdomain(origin)]
        return max(holding, key=lambda zone: len(zone.origin), default=None)

    def _query(self, message: dns.message.Message) -> bytes:
        self.counters.queries += 1
        question = message.question[0]
        zone = self.zone_of(question.name)
        if zone is None:
            return self._reply(message, dns.rcode.REFUSED)
        reply = dns.message.make_response(message)
        reply.flags |= dns.flags.AA
        answer, exists = zone.lookup(question.name, question.rdtype)
        reply.answer.extend(answer)
        if not answer:
            reply.authority.append(zone.soa_rrset())
        if not exists:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    def _transfer(self, message: dns.message.Message) -> list[bytes]:
        """Return the messages of a transfer, each signed. Source: RFC 5936, RFC 1995, RFC 8945 section 5.3.1."""
        self.counters.transfers += 1
        zone = self.zones.get(message.question[0].name)
        if zone is None:
            return [self._reply(message, dns.rcode.NOTAUTH)]
        if not message.had_tsig:
            return [self._reply(message, dns.rcode.REFUSED)]
        serial = None
        if message.question[0].rdtype == dns.rdatatype.IXFR and message.authority:
            serial = message.authority[0][0].serial
        records = zone.transfer(serial)
        wires: list[bytes] = []
        context = None
        for start in range(0, len(records), _TRANSFER_RRS):
            reply = dns.message.make_response(message)
            reply.flags |= dns.flags.AA
            for name, ttl, rdata in records[start : start + _TRANSFER_RRS]:
                reply.answer.append(dns.rrset.from_rdata(name, ttl, rdata))
            wires.append(reply.to_wire(multi=True, tsig_ctx=context))
            context = reply.tsig_ctx
        return wires


class _Datagrams(asyncio.DatagramProtocol):
    """UDP: queries and small updates."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every event loop's datagram transport is an instance of the class that asyncio has for them.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | None, int]) -> None:
        self._authority.later(self._answer(data, addr))

    async def _answer(self, data: bytes, addr: tuple[str | None, int]) -> None:
        with suppress(_CloseError):
            for wire in (await self._authority.answer(data))[:1]:
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.sendto(wire, addr)


class _CloseError(Exception):
    """The connection is to be cut."""
