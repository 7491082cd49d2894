"""What an answer, or the lack of one, means: one table, read by the sender, `doctor` and the documentation. Pure.

An unsigned answer is only ever hearsay: it gives the words, it never decides that something was or was not applied.
"""

from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """How an exchange ended without an answer."""

    REFUSED = "connection refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "no connection in time"
    TIMEOUT = "no answer in time"
    CLOSED = "closed by the server"
    RESET = "reset by the server"
    GARBAGE = "not an answer to our question"


class Kind(Enum):
    """What the sender does about it."""

    APPLIED = "applied"
    PREREQUISITE = "prerequisite"  # fence or ownership: look which
    NOT_SENT = "not-sent"  # surely not applied
    UNKNOWN = "unknown"  # perhaps applied, perhaps later: raise the fence, then send again
    REFUSED = "refused"
    KEY = "key"
    CLOCK = "clock"
    ZONE = "zone"
    UNABLE = "unable"


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an exchange: a failure, or an answer's code, TSIG error and signature."""

    failure: Failure | None = None
    rcode: str = ""
    tsig_error: str = ""
    signed: bool = False
    skew_s: float | None = None  # the server's clock minus ours


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; the first that matches holds. `None` matches everything."""

    kind: Kind
    text: str
    hint: str = ""
    failure: Failure | None = None
    rcode: tuple[str, ...] = ()
    tsig_error: str | None = None
    signed: bool | None = None

    def matches(self, seen: Seen) -> bool:
        """Whether this line is about what was seen."""
        if seen.failure is not None or self.failure is not None:
            return seen.failure is self.failure
        return (
            (not self.rcode or seen.rcode in self.rcode)
            and (self.tsig_error is None or seen.tsig_error == self.tsig_error)
            and (self.signed is None or seen.signed is self.signed)
        )


PREREQUISITE_CODES = ("NXRRSET", "YXRRSET", "NXDOMAIN", "YXDOMAIN")

TABLE: tuple[Row, ...] = (
    Row(Kind.NOT_SENT, "nothing listens at {server}", "is the server running, and on this address and port?",
        failure=Failure.REFUSED),
    Row(Kind.NOT_SENT, "{server} cannot be reached", "look at the route and the address", failure=Failure.UNREACHABLE),
    Row(Kind.NOT_SENT, "{server} did not accept a connection in {timeout_s:g} s",
        "host down, or a firewall drops TCP/53", failure=Failure.CONNECT_TIMEOUT),
    Row(Kind.UNKNOWN, "{server} took the message and did not answer in {timeout_s:g} s; it may still apply it",
        "stopped or overloaded; Knot: an open `knotc zone-begin` transaction makes updates hang, "
        "`knotc zone-abort {zone}` ends it, and from 3.4 on a frozen zone does, `knotc zone-thaw {zone}` ends that",
        failure=Failure.TIMEOUT),
    Row(Kind.UNKNOWN, "{server} closed the connection instead of answering",
        "restarted, or too many connections; or not a name server on that port?", failure=Failure.CLOSED),
    Row(Kind.UNKNOWN, "{server} reset the connection instead of answering", "it may have been restarted",
        failure=Failure.RESET),
    Row(Kind.UNKNOWN, "{server} sent what is not an answer to our question", "not a name server on that port?",
        failure=Failure.GARBAGE),
    Row(Kind.APPLIED, "applied", rcode=("NOERROR",), signed=True),
    Row(Kind.UNKNOWN, "{server} answered NOERROR without a valid signature; not believed",
        "somebody between may have made it up; or the server does not sign its answers", rcode=("NOERROR",)),
    Row(Kind.PREREQUISITE, "zone {zone} at {server} is not as we left it ({rcode})",
        "somebody else writes to it at the same time; it is looked at again", rcode=PREREQUISITE_CODES, signed=True),
    Row(Kind.UNKNOWN, "{server} answered {rcode} without a valid signature; not believed",
        "somebody between may have made it up", rcode=PREREQUISITE_CODES),
    Row(Kind.CLOCK, "the sender's clock is {skew} of {server} (BADTIME)", "run NTP on both; TSIG allows {fudge_s} s",
        tsig_error="BADTIME"),
    Row(Kind.KEY,
        "{server} does not know key {key} with that algorithm, or, if it is Knot, its ACL does not let it (BADKEY)",
        "compare name and algorithm in the server's configuration; Knot: `acl` needs action update and must be listed "
        "in the zone", tsig_error="BADKEY"),
    Row(Kind.KEY, "{server} has another secret for key {key} (BADSIG)", "copy the key file anew", tsig_error="BADSIG"),
    Row(Kind.KEY, "{server} does not accept signatures as short as ours (BADTRUNC)",
        "make a new key with a longer algorithm: `tsig-keygen -a hmac-sha512`", tsig_error="BADTRUNC"),
    Row(Kind.UNKNOWN, "{server} could not do it for zone {zone} (SERVFAIL)",
        "BIND: journal not writable or out of sync with the zone file, see its log; PowerDNS: its database was locked",
        rcode=("SERVFAIL",)),
    Row(Kind.REFUSED, "{server} knows key {key} and refuses the change to zone {zone} (REFUSED)",
        "BIND: update-policy, check-names, a frozen zone (`rndc thaw {zone}`), or a secondary without "
        "allow-update-forwarding; Knot: a frozen zone (`knotc zone-thaw {zone}`); PowerDNS: TSIG-ALLOW-DNSUPDATE and "
        "ALLOW-DNSUPDATE-FROM, or a CNAME beside other records", rcode=("REFUSED",), signed=True),
    Row(Kind.REFUSED, "{server} refuses without saying whom it believes us to be (REFUSED, unsigned)",
        "PowerDNS says this for a wrong key, a wrong clock, a zone that is not there and missing rights alike; BIND to "
        "addresses that it does not serve", rcode=("REFUSED",)),
    Row(Kind.ZONE, "{server} is not the primary of zone {zone}, or {zone} is not a zone's apex (NOTAUTH)",
        "compare dns.zones with the server's zones", rcode=("NOTAUTH",), signed=True),
    Row(Kind.ZONE, "{server} is not the primary of zone {zone}, or {zone} is not a zone's apex (NOTAUTH, unsigned)",
        "compare dns.zones with the server's zones; Knot from 3.4 on says the same of a key that it does not know, or "
        "that no `acl` of the zone lets update: compare name and algorithm of {key}, too", rcode=("NOTAUTH",),
        signed=False),
    Row(Kind.ZONE, "a name is outside of zone {zone} (NOTZONE)", "compare dns.zones with the server's zones",
        rcode=("NOTZONE",)),
    Row(Kind.UNABLE, "{server} cannot do updates (NOTIMP)", "NSD and Unbound never can: send to the primary",
        rcode=("NOTIMP",)),
    Row(Kind.UNABLE, "{server} does not understand the message (FORMERR)", "something between may change it",
        rcode=("FORMERR",)),
    Row(Kind.UNKNOWN, "{server} answered {rcode}", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """An exchange in words. `surely_not_applied`: the server said no under its signature, or never got it."""

    kind: Kind
    text: str
    hint: str
    seen: Seen

    @property
    def is_applied(self) -> bool:
        """The server said yes under its signature."""
        return self.kind is Kind.APPLIED

    @property
    def surely_not_applied(self) -> bool:
        """Whether sending anything else cannot be overtaken by this message."""
        if self.kind in (Kind.APPLIED, Kind.UNKNOWN):
            return False
        return self.kind is Kind.NOT_SENT or self.seen.signed

    def __str__(self) -> str:
        return f"{self.text}: {self.hint}" if self.hint else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the words are about."""

    server: str
    zone: str = ""
    key: str = ""
    timeout_s: float = 0.0
    fudge_s: int = 300


def diagnose(seen: Seen, context: Context) -> Diagnosis:
    """Return the first line of the table that matches."""
    row = next(row for row in TABLE if row.matches(seen))
    words = {
        "server": context.server,
        "zone": context.zone,
        "key": context.key,
        "timeout_s": context.timeout_s,
        "fudge_s": context.fudge_s,
        "rcode": seen.rcode or "an unknown code",
        "skew": skew_words(seen.skew_s),
    }
    return Diagnosis(row.kind, row.text.format(**words), row.hint.format(**words), seen)


def skew_words(skew_s: float | None) -> str:
    """Return how our clock stands to the server's: `301 s behind that`."""
    if skew_s is None:
        return "too far from that"
    return f"{abs(skew_s):.0f} s {'behind' if skew_s > 0 else 'ahead of'} that"
