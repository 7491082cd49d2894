"""What each name server answers to each thing that can be wrong, as data: the tests provoke it, a page shows it.

`python -m tests.dnsupdate.matrix > docs/dns-errors.md` writes the page.
"""

import asyncio
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from dnsupdate.diagnosis import Failure, Seen
from dnsupdate.exchange import Channel, Peer, Reply
from dnsupdate.keys import Key
from dnsupdate.update import Add, Delete, NoName, Operation, Update
from tests.dnsupdate.servers import CLASSLESS, FORWARD, Target, wall
from tests.support.nameservers import CLOSED, KEY, LIMITED, OTHER_KEY, SPOILT, running, secondary

IP, HOST = "192.0.2.1", "a.cluster.example."
SERVERS = {"bind": "BIND 9.18", "knot": "Knot 3.2", "powerdns": "PowerDNS 4.7", "builtin": "builtin"}
Send = Callable[[Target, Update], Awaitable[Reply]]

APPLIED = Seen(rcode="NOERROR", signed=True)
REFUSED, BARE_REFUSED = Seen(rcode="REFUSED", signed=True), Seen(rcode="REFUSED")
NOTAUTH, BARE_NOTAUTH = Seen(rcode="NOTAUTH", signed=True), Seen(rcode="NOTAUTH")
BADKEY, BADSIG = Seen(rcode="NOTAUTH", tsig_error="BADKEY"), Seen(rcode="NOTAUTH", tsig_error="BADSIG")
BADTIME = Seen(rcode="NOTAUTH", tsig_error="BADTIME")
NOTZONE, SERVFAIL = Seen(rcode="NOTZONE", signed=True), Seen(rcode="SERVFAIL", signed=True)
YXDOMAIN, SILENT = Seen(rcode="YXDOMAIN", signed=True), Seen(failure=Failure.TIMEOUT)


async def send_to(peer: Peer, update: Update, clock: Callable[[], float] = wall) -> Reply:
    async with Channel(peer, clock) as channel:
        return (await channel.update(update))[0]


async def _plainly(target: Target, update: Update) -> Reply:
    return await send_to(target.peer(), update)


def _with(key: Key | None) -> Send:
    return lambda target, update: send_to(target.peer(key), update)


def _at(skew_s: int) -> Send:
    """Our clock is off by this to the second: the signature's and the server's time are of the same one.

    BIND's clock is the kernel's coarse one, which stays in a second for some milliseconds longer.
    """

    async def send(target: Target, update: Update) -> Reply:
        while True:
            await asyncio.sleep(max(0.0, 0.05 - wall() % 1))
            began = int(wall())
            reply = await send_to(target.peer(fudge_s=300), update, partial(float, began + skew_s))
            if int(wall()) == began:
                return reply

    return send


async def _hurried(target: Target, update: Update) -> Reply:
    return await send_to(target.peer(timeout_s=0.5), update)


def _to_secondary(*, forwards: bool) -> Send:
    async def send(target: Target, update: Update) -> Reply:
        folder = Path(tempfile.mkdtemp(prefix="arv-test-secondary-"))
        with running(secondary(folder, FORWARD, target.port, forwards=forwards)) as server:
            return await send_to(Peer(address="127.0.0.1", port=server.port, key=KEY, timeout_s=10), update)

    return send


@contextmanager
def _stopped(target: Target) -> Iterator[None]:
    assert target.process is not None
    target.process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        target.process.signal(signal.SIGCONT)


@contextmanager
def _frozen(target: Target) -> Iterator[None]:
    assert target.process is not None
    verbs = ("freeze", "thaw") if target.kind == "bind" else ("zone-freeze", "zone-thaw")
    target.process.control(verbs[0], CLASSLESS)
    try:
        yield
    finally:
        target.process.control(verbs[1], CLASSLESS)


@contextmanager
def _in_transaction(target: Target) -> Iterator[None]:
    assert target.process is not None
    target.process.control("zone-begin", CLASSLESS)
    try:
        yield
    finally:
        target.process.control("zone-abort", CLASSLESS)


@contextmanager
def _locked(target: Target) -> Iterator[None]:
    assert target.process is not None
    with closing(sqlite3.connect(target.process.folder / "zones.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


@dataclass(frozen=True)
class Row:
    """One thing that is wrong, and what each server says; one that is missing cannot be brought to it.

    `there`: where the answer does not say it, whether the last operation of `update` is in the zone in the end.
    `helps`: what the diagnosis says, but where a server has one word for everything.
    """

    case: str
    answers: Mapping[str, Seen]
    update: Update
    send: Send = _plainly
    before: Update | None = None
    state: Callable[[Target], AbstractContextManager[None]] = lambda _: nullcontext()
    there: Mapping[str, bool] = field(default_factory=dict)
    helps: str = ""


def a(label: str, zone: str = FORWARD, *needed: NoName) -> Update:
    name = f"{label}.{zone}"
    return Update(zone, needed, (Delete(name, "A"), Add(name, "A", 60, (IP,))))


def one(*operations: Operation, zone: str = FORWARD) -> Update:
    return Update(zone, (), operations)


def of(label: str, rdtype: str, data: str, ttl: int = 60) -> Add:
    return Add(f"{label}.{FORWARD}", rdtype, ttl, (data,))


def everywhere(seen: Seen, **others: Seen) -> dict[str, Seen]:
    return {server: others.get(server, seen) for server in SERVERS}


def at(*servers: str, seen: Seen) -> dict[str, Seen]:
    return dict.fromkeys(servers, seen)


ROWS = (
    Row("key with a name that the server does not know", everywhere(BADKEY, powerdns=BARE_REFUSED), a("key1"),
        _with(Key("nobody.", "hmac-sha256", b"x" * 32)), helps="does not know key nobody. with that algorithm"),
    Row("key with another secret", everywhere(BADSIG, powerdns=BARE_REFUSED), a("key2"),
        _with(Key("upd.", "hmac-sha256", b"y" * 32)), helps="copy the key file anew"),
    Row("key with another algorithm", everywhere(BADKEY, powerdns=BARE_REFUSED), a("key3"),
        _with(Key("upd.", "hmac-sha512", KEY.secret)), helps="compare name and algorithm"),
    Row("valid key without any right", {"bind": REFUSED, "knot": BADKEY, "powerdns": REFUSED}, a("key4"),
        _with(OTHER_KEY), helps="update-policy"),
    Row("no key at all", everywhere(BARE_REFUSED, knot=BARE_NOTAUTH), a("key5"), _with(None)),
    Row("clock 301 s ahead", everywhere(BADTIME, powerdns=BARE_REFUSED), a("ahead1"), _at(301),
        helps="clock is 301 s ahead of that"),
    Row("clock 301 s behind", everywhere(BADTIME, powerdns=BARE_REFUSED), a("behind1"), _at(-301),
        helps="clock is 301 s behind that"),
    Row("clock 300 s ahead, `fudge: 300`", everywhere(APPLIED), a("ahead0"), _at(300)),
    Row("clock 300 s behind, `fudge: 300`", everywhere(APPLIED), a("behind0"), _at(-300)),
    Row("zone that the server does not have", everywhere(NOTAUTH, knot=BARE_NOTAUTH), a("a", "nowhere.test."),
        helps="is not the primary of zone nowhere.test."),
    Row("zone below the one that it has", everywhere(NOTAUTH, knot=BARE_NOTAUTH), a("a", f"sub.{FORWARD}"),
        helps=f"sub.{FORWARD} is not a zone's apex"),
    Row("zone above the one that it has", everywhere(NOTAUTH, knot=BARE_NOTAUTH), a("a", "example."),
        helps="compare dns.zones"),
    Row("name outside of the zone", everywhere(NOTZONE), one(Add("x.other.", "A", 60, (IP,)), *a("half").operations),
        helps=f"outside of zone {FORWARD}"),
    Row("prerequisite outside of the zone", everywhere(NOTZONE), a("needs", FORWARD, NoName("x.other."))),
    Row("zone without the right to update", {"bind": REFUSED, "knot": BADKEY, "powerdns": REFUSED}, a("a", CLOSED),
        helps="TSIG-ALLOW-DNSUPDATE"),
    Row("record type that the policy forbids", {"bind": REFUSED, "knot": BADKEY},
        one(Add(f"a.{LIMITED}", "TXT", 60, ('"x"',)), *a("a", LIMITED).operations, zone=LIMITED)),
    Row("new name that is in use", everywhere(YXDOMAIN), a("used", FORWARD, NoName(f"used.{FORWARD}")),
        before=one(of("used", "TXT", '"theirs"'))),
    Row("CNAME beside other records", everywhere(APPLIED, powerdns=REFUSED), one(of("clash1", "CNAME", HOST)),
        before=a("clash1"), there=dict.fromkeys(SERVERS, False), helps="CNAME"),
    Row("other records beside a CNAME", everywhere(APPLIED, powerdns=REFUSED), a("clash2"),
        before=one(of("clash2", "CNAME", HOST)), there=dict.fromkeys(SERVERS, False), helps="CNAME"),
    Row("name below a delegation", everywhere(APPLIED), a("below.cut"), before=one(of("cut", "NS", HOST))),
    Row("name that is no host name", everywhere(APPLIED, bind=REFUSED), a('a\\032b\\;\\"$(x)'), helps="check-names"),
    Row("underscore in the name of an address", everywhere(APPLIED, bind=REFUSED), a("under_score"),
        helps="check-names"),
    Row("wildcard", everywhere(APPLIED), a("*.wild")),
    Row("largest TTL", everywhere(APPLIED), one(of("long", "TXT", '"x"', 2**31 - 1))),
    Row("SRV", everywhere(APPLIED), one(of("_slurmd._tcp", "SRV", f"0 0 6818 {HOST}"))),
    Row("SSHFP", everywhere(APPLIED), one(of("finger", "SSHFP", f"4 2 {'ab' * 32}"))),
    Row("HTTPS", everywhere(APPLIED), one(of("web", "HTTPS", "1 . alpn=h2"))),
    Row("DHCID", everywhere(APPLIED), one(of("lease", "DHCID", "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="))),
    Row("zone frozen by `rndc freeze`", {"bind": REFUSED}, a("frozen", CLASSLESS), state=_frozen,
        helps=f"`rndc thaw {CLASSLESS}`"),
    Row("zone frozen by `knotc zone-freeze`", {"knot": REFUSED}, a("frozen", CLASSLESS), state=_frozen,
        helps=f"`knotc zone-thaw {CLASSLESS}`"),
    Row("open `knotc zone-begin` transaction", {"knot": SILENT}, a("open", CLASSLESS), _hurried,
        state=_in_transaction, there={"knot": True}, helps=f"`knotc zone-abort {CLASSLESS}`"),
    Row("journal that cannot be written", {"bind": SERVFAIL}, a("journal", SPOILT), helps="journal not writable"),
    Row("database that another process has locked", {"powerdns": SERVFAIL}, a("locked"), state=_locked,
        helps="its database was locked"),
    Row("process stopped, and continued after we gave up", dict.fromkeys(("bind", "knot", "powerdns"), SILENT),
        a("zombie"), _hurried, state=_stopped, there=dict.fromkeys(SERVERS, True), helps="it may still apply it"),
    Row("secondary that forwards no updates", {"bind": REFUSED}, a("second1"), _to_secondary(forwards=False),
        helps="a secondary"),
    Row("secondary that forwards updates", {"bind": APPLIED}, a("second2"), _to_secondary(forwards=True)),
)  # fmt: skip


# What newer ones answer instead: those of Debian 13.
NEWER = {
    ("knot", (3, 4)): {BADKEY: BARE_NOTAUTH, REFUSED: SILENT},
    ("powerdns", (4, 8)): {SERVFAIL: SILENT},
}


def answer(row: Row, target: Target) -> Seen:
    """What this version of a server answers."""
    seen = row.answers[target.kind]
    for (kind, since), instead in NEWER.items():
        if kind == target.kind and target.version >= since:
            seen = instead.get(seen, seen)
    return seen


def helps(row: Row, server: str, seen: Seen) -> str:
    """What the diagnosis has to say."""
    match seen:
        case seen if seen == APPLIED:
            return "applied"
        case seen if seen == BARE_REFUSED:
            return "PowerDNS says this for a wrong key, a wrong clock"
        case seen if seen == BADKEY and server == "knot":
            return "Knot: `acl` needs action update and must be listed in the zone"
        case seen if seen == BARE_NOTAUTH and row.answers[server] == BADKEY:
            return "Knot from 3.4 on says the same of a key that it does not know"
        case seen if seen == SILENT and row.answers[server] == SERVFAIL:
            return "it may still apply it"
        case _:
            return row.helps


def page() -> str:
    """The documentation of all that."""
    lines = [_HEAD]
    for row in ROWS:
        answers: dict[str, list[str]] = {}
        for server, seen in row.answers.items():
            answers.setdefault(_code(seen) + _effect(row, server), []).append(SERVERS[server])
        shown = "; ".join(f"{code} ({', '.join(servers)})" for code, servers in answers.items())
        lines.append(f"| {row.case} | {shown} |")
    return "\n".join(lines) + "\n"


def _code(seen: Seen) -> str:
    if seen.failure is not None:
        return "no answer"
    return seen.tsig_error or f"{'' if seen.signed else 'unsigned '}{seen.rcode}"


def _effect(row: Row, server: str) -> str:
    if row.there.get(server, False):
        return ", applied later"
    return " but changes nothing" if row.answers[server] == APPLIED and server in row.there else ""


_HEAD = """# What name servers answer

What BIND, Knot, PowerDNS and our own authority (`kind: builtin`) answer when something is wrong, or only looks so. Each
line is a test against the real server. `dns show`, `dns test` and `dns trace` put the answers into words:
[dns.md](dns.md#when-something-is-wrong).

BADKEY, BADSIG and BADTIME come with NOTAUTH. *Unsigned* answers are hearsay: they are shown, and decide nothing. NSD
and Unbound take no updates at all (NOTIMP). Messages go by TCP only: on UDP PowerDNS drops large ones, and BIND more
than 100 at once.

From 3.4 on Knot says unsigned NOTAUTH where it said BADKEY, and nothing for a frozen zone; PowerDNS from 4.8 on says
nothing while its database is locked. What got no answer is applied later. The tests hold those versions to that.

| what is wrong | what the server answers |
|---|---|"""


if __name__ == "__main__":
    sys.stdout.write(page())
