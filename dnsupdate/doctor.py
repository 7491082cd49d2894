"""Asks a target's server everything that matters, changing nothing unless told to; says how to mend what is wrong."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from dnsupdate.diagnosis import Diagnosis, Kind
from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.keys import Key
from dnsupdate.settings import Settings, TargetSettings
from dnsupdate.transfer import Mirror, TransferError
from dnsupdate.update import Add, Delete, NoName, Update, fence_name

_NEGATIVE_TTL_S = 30
_SKEW_S = 10
_TEST_TYPES = (("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("TXT", '"arv-balance test"'))
_OPEN = (
    "updates are taken without a key, from this address at least: who can send from it can change any name",
    "PowerDNS: set TSIG-ALLOW-DNSUPDATE of the zone; BIND and Knot: give the right to the key, not to addresses",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `level`: ok, warning, error; `mends`: configuration of the server would help."""

    subject: str
    level: str
    text: str
    hint: str = ""
    mends: bool = False


class Doctor:
    """Examines one target."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        peers: tuple[Peer, ...],
        transfer_peers: tuple[Peer, ...],
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._name, self._settings = name, settings
        self._target: TargetSettings = settings.targets[name]
        self._zones = tuple(zone.name for zone in settings.zones_of(name))
        self._peers, self._transfer_peers, self._wall, self._clock = peers, transfer_peers, wall, clock

    async def examine(self, *, write: bool = False) -> list[Finding]:
        """Return what was found. `write`: make and remove one name in each forward zone."""
        found: list[Finding] = []
        for peer, transfer_peer in zip(self._peers, self._transfer_peers, strict=True):
            async with Channel(peer, self._wall) as channel:
                found += await self._server(channel, transfer_peer, write=write)
        return found

    async def _server(self, channel: Channel, transfer_peer: Peer, *, write: bool) -> list[Finding]:
        started = self._clock()
        probes = await channel.update(*(Update(zone) for zone in self._zones))
        took_s = self._clock() - started
        first = probes[0] if probes else None
        if first is not None and first.diagnosis.seen.failure is not None:
            return [_bad(channel.peer.name, first.diagnosis)]
        found = [Finding(channel.peer.name, "ok", f"answers updates in {took_s * 1000:.0f} ms")]
        found += self._skew(channel.peer, first)
        for zone, reply in zip(self._zones, probes, strict=True):
            found.append(self._right(zone, reply))
            if reply.diagnosis.is_applied:
                found += await self._zone(channel, transfer_peer, zone)
                found += await self._written(channel, zone) if write and not zone.endswith(".arpa.") else []
        return [*found, *await self._unsigned(channel.peer)]

    async def _unsigned(self, peer: Peer) -> list[Finding]:
        """Try without a key to delete a name that nobody has, if nobody has it: judged by the code, without effect.

        There is something to delete in it, because rights may be those of single records; and the prerequisite holds,
        because RFC 2136 looks at rights after the prerequisites.
        """
        names = {zone: f"{_unused()}.{zone}" for zone in self._zones}
        tries = [Update(zone, (NoName(name),), (Delete(name, "TXT"),)) for zone, name in names.items()]
        async with Channel(replace(peer, key=None), self._wall) as channel:
            replies = await channel.update(*tries)
        found = []
        for zone, reply in zip(self._zones, replies, strict=True):
            if reply.diagnosis.seen.rcode == "NOERROR":
                found.append(Finding(zone, "warning", *_OPEN, mends=True))
            elif reply.diagnosis.seen.failure is None:
                found.append(Finding(zone, "ok", "updates without a key are refused"))
        return found

    def _skew(self, peer: Peer, reply: Reply | None) -> list[Finding]:
        if reply is None or reply.diagnosis.seen.skew_s is None:
            return []
        skew_s = reply.diagnosis.seen.skew_s
        apart = f"{abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead of'} the server's"
        text = f"our clock is {apart}" if abs(skew_s) >= 1 else "our clock agrees with the server's"
        level = "ok" if abs(skew_s) <= _SKEW_S else "warning"
        hint = "" if level == "ok" else f"run NTP on both; beyond {peer.fudge_s} s nothing is accepted"
        return [Finding(f"clock of {peer.name}", level, text, hint)]

    def _right(self, zone: str, reply: Reply) -> Finding:
        if reply.diagnosis.is_applied:
            return Finding(zone, "ok", "key accepted, updates allowed")
        return _bad(zone, reply.diagnosis)

    async def _zone(self, channel: Channel, transfer_peer: Peer, zone: str) -> list[Finding]:
        (reply, fence) = await channel.query((zone, "SOA"), (fence_name(self._settings.owner_id, zone), "TXT"))
        found: list[Finding] = []
        soa = reply.answer.data("SOA") if reply.answer is not None else ()
        if soa:
            mname, _, serial, *_, negative = soa[0].split()
            found.append(Finding(zone, "ok", f"serial {serial}"))
            if int(negative) > _NEGATIVE_TTL_S:
                text = f"a name that was asked for too early stays unknown for {negative} s"
                found.append(Finding(zone, "warning", text, f"set the SOA's last number to {_NEGATIVE_TTL_S} or less"))
            if mname.endswith("invalid."):
                hint = "nothing of ours uses it, but nsupdate without a `server` line does"
                found.append(Finding(zone, "warning", f"its primary by the SOA record is {mname}", hint))
            found += await self._lag(zone, int(serial))
        written = fence.answer.data("TXT") if fence.answer is not None else ()
        found.append(Finding(zone, "ok", "fence: " + (written[0].strip('"') if written else "none yet")))
        return [*found, await self._transfer(transfer_peer, zone)]

    async def _transfer(self, peer: Peer, zone: str) -> Finding:
        try:
            content = await Mirror(zone).refresh(peer, timeout_s=self._target.timeout)
        except TransferError as exc:
            text = f"no transfer: {exc.diagnosis.text}; names that we lost track of would never be deleted"
            hint = "allow the key to transfer: `arv-balance dns doctor --snippets`"
            return Finding(zone, "warning", text, hint, mends=True)
        return Finding(zone, "ok", f"can be transferred, names: {len(content)}")

    async def _lag(self, zone: str, serial: int) -> list[Finding]:
        """Compare the other servers of the zone; they are asked without a key, as resolvers do."""
        found = []
        for address in self._target.nameservers:
            host, _, port = address.partition("@")
            peer = Peer(address=host, port=int(port or self._target.port), timeout_s=self._target.timeout)
            async with Channel(peer, self._wall) as channel:
                (reply,) = await channel.query((zone, "SOA"))
            soa = reply.answer.data("SOA") if reply.answer is not None else ()
            if not soa:
                found.append(Finding(zone, "error", f"{peer.name} does not serve it", str(reply.diagnosis.text)))
            elif int(soa[0].split()[2]) != serial:
                text = f"{peer.name} has serial {soa[0].split()[2]}, the primary {serial}"
                found.append(Finding(zone, "warning", text, "look again in some seconds; else a NOTIFY was lost"))
            else:
                found.append(Finding(zone, "ok", f"{peer.name} has serial {serial} too"))
        return found

    async def _written(self, channel: Channel, zone: str) -> list[Finding]:
        """Make a name that nobody has, and remove it."""
        name = f"{_unused()}.{zone}"
        found = []
        for rdtype, data in _TEST_TYPES:
            made = Update(zone, (NoName(name),), (Add(name, rdtype, 0, (data,)),))
            (reply,) = await channel.update(made)
            (gone,) = await channel.update(Update(zone, (), (Delete(name, rdtype),)))
            if reply.diagnosis.is_applied and gone.diagnosis.is_applied:
                found.append(Finding(zone, "ok", f"{rdtype} records can be made and removed"))
            else:
                diagnosis = gone.diagnosis if reply.diagnosis.is_applied else reply.diagnosis
                found.append(_bad(f"{zone} {rdtype}", diagnosis))
        return found


def _unused() -> str:
    """Return a label that nobody has."""
    return f"arv-balance-test-{secrets.token_hex(4)}"


def _bad(subject: str, diagnosis: Diagnosis) -> Finding:
    mends = diagnosis.kind in (Kind.KEY, Kind.REFUSED, Kind.ZONE)
    return Finding(subject, "error", diagnosis.text, diagnosis.hint, mends)


def snippets(key: Key | None, zones: tuple[str, ...]) -> dict[str, str]:
    """Return the configuration that BIND, Knot and PowerDNS need, by server; without the secret."""
    name = key.name.rstrip(".") if key is not None else "arv-balance"
    algorithm = key.algorithm if key is not None else "hmac-sha256"
    plain = [zone.rstrip(".") for zone in zones]
    bind = [f'include "/etc/bind/{name}.key";  // tsig-keygen -a {algorithm} {name} > /etc/bind/{name}.key']
    bind += [
        f'zone "{zone}" {{ type primary; file "/var/lib/bind/{zone}.zone"; '
        f"update-policy {{ grant {name} zonesub ANY; }}; allow-transfer {{ key {name}; }}; }};"
        for zone in plain
    ]
    knot = [f"key:\n  - id: {name}\n    algorithm: {algorithm}\n    secret: (of the key file)"]
    knot += [f"acl:\n  - id: {name}\n    key: {name}\n    action: [update, transfer]\nzone:"]
    knot += [
        f"  - domain: {zone}\n    acl: {name}\n    zonefile-sync: -1\n    journal-content: all\n    zonefile-load: none"
        for zone in plain
    ]
    pdns = [f"pdnsutil import-tsig-key {name} {algorithm} (secret of the key file)"]
    for zone in plain:
        pdns += [
            f"pdnsutil set-meta {zone} TSIG-ALLOW-DNSUPDATE {name}",
            f"pdnsutil set-meta {zone} ALLOW-DNSUPDATE-FROM 0.0.0.0/0 ::/0   # narrow it to the senders",
            f"pdnsutil set-meta {zone} TSIG-ALLOW-AXFR {name}",
            f"pdnsutil set-meta {zone} SOA-EDIT-DNSUPDATE INCREASE",
        ]
    pdns.append("# pdns.conf: dnsupdate=yes, allow-dnsupdate-from=(the senders)")
    return {"BIND": "\n".join(bind), "Knot": "\n".join(knot), "PowerDNS": "\n".join(pdns)}
