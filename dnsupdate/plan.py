"""Desired and published records -> what to change. Pure: no server, no database, no clock.

A name is wholly ours or wholly not: its marker says so. The plan is a list of changes, one a name, each with the proof
of ownership that the server has to check before it applies it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from dnsupdate.records import Contribution
from dnsupdate.settings import Brake

Key = tuple[str, str]  # zone, record name


class RRset(NamedTuple):
    """A record set of one name. `rdatas` are canonical texts, sorted."""

    rdtype: str
    ttl: int
    rdatas: tuple[str, ...]


class Standing(Enum):
    """Whose a name is at the server."""

    OURS = "ours"  # carries our marker
    FREE = "free"  # nothing there
    FOREIGN = "foreign"  # in use, without our marker


class Guard(Enum):
    """The prerequisite that goes with a change (RFC 2136 section 2.4)."""

    ABSENT = "absent"  # name not in use
    MARKER = "marker"  # our marker is there, exactly
    VALUE = "value"  # the record sets in `expected` are there, exactly
    NONE = "none"  # taken over on an operator's word, or ownership is not kept


@dataclass(frozen=True, slots=True)
class Policy:
    """How names are told apart. `owner`: our id in markers."""

    owner: str
    ownership: str = "txt"
    conflict: str = "protect"


class Change(NamedTuple):
    """What happens at one name: delete the record sets of `types`, then add `after`."""

    zone: str
    name: str
    guard: Guard
    before: tuple[RRset, ...]
    after: tuple[RRset, ...]
    types: tuple[str, ...]
    hosts: frozenset[str]
    expected: tuple[RRset, ...] = ()
    mark: bool = False  # write or remove the marker too

    @property
    def key(self) -> Key:
        """Zone and name."""
        return self.zone, self.name

    @property
    def deletes(self) -> bool:
        """Whether the name is gone afterwards."""
        return not self.after


@dataclass(frozen=True, slots=True, order=True)
class Conflict:
    """A host that cannot have a name."""

    host: str
    zone: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send. `losers`: hosts outside the plan whose names went to a newer one."""

    changes: tuple[Change, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    contributions: Mapping[Key, tuple[Contribution, ...]] = field(default_factory=dict)

    @property
    def deletions(self) -> tuple[Change, ...]:
        """The changes after which a name is gone."""
        return tuple(change for change in self.changes if change.deletes)

    def zones(self) -> dict[str, tuple[Change, ...]]:
        """Return the changes by zone."""
        found: dict[str, list[Change]] = defaultdict(list)
        for change in self.changes:
            found[change.zone].append(change)
        return {zone: tuple(changes) for zone, changes in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known about the server. `unsure`: names and types about which the table may be wrong."""

    published: tuple[Contribution, ...] = ()
    unsure: frozenset[tuple[str, str, str]] = frozenset()
    standing: Mapping[Key, Standing] = field(default_factory=dict)
    foreign: Mapping[Key, tuple[RRset, ...]] = field(default_factory=dict)
    adopted: frozenset[Key] = frozenset()


def make(desired: Iterable[Contribution], hosts: frozenset[str], state: State, policy: Policy) -> Plan:
    """Return the plan for the given hosts.

    Args:
        desired: what these hosts should have at this target.
        hosts: their uuids. What other hosts have published stays, unless a newer host claims the name.
        state: all published contributions at the names that these hosts have or want, and what is unsure.
        policy: ownership.
    """
    wanted: dict[Key, list[Contribution]] = defaultdict(list)
    published: dict[Key, list[Contribution]] = defaultdict(list)
    for found in desired:
        wanted[found.zone, found.name].append(found)
    for found in state.published:
        published[found.zone, found.name].append(found)
        if found.host not in hosts:
            wanted[found.zone, found.name].append(found)
    types: dict[Key, set[str]] = defaultdict(set)
    for zone, name, rdtype in state.unsure:
        types[zone, name].add(rdtype)
    changes: list[Change] = []
    conflicts: list[Conflict] = []
    kept: dict[Key, tuple[Contribution, ...]] = {}
    known = {*published, *types, *state.standing, *state.adopted}
    for key in sorted({*wanted, *published, *types}):
        if key not in known and len(wanted[key]) == 1:  # most of a burst: a new name that one host claims
            kept[key] = tuple(wanted[key])
            changes.append(_new(wanted[key][0], policy))
            continue
        winners, losers = settle(wanted[key])
        conflicts += losers
        kept[key] = winners
        change = _change(key, winners, tuple(published[key]), frozenset(types[key]), policy, state)
        match change:
            case Change():
                changes.append(change)
            case Conflict():
                conflicts += [
                    Conflict(host, *key, change.text) for host in sorted({found.host for found in winners}) or [""]
                ]
            case None:
                pass
    return Plan(tuple(changes), tuple(sorted(set(conflicts))), kept)


def settle(claims: list[Contribution]) -> tuple[tuple[Contribution, ...], list[Conflict]]:
    """Return the claims on one name that hold, and the hosts that lose it.

    Shared ones all hold; of the others those of the newest host, a living one before an absent one. A CNAME holds alone
    (RFC 1034 section 3.6.2).
    """
    if len(claims) == 1:
        return tuple(claims), []
    own = [claim for claim in claims if not claim.shared]
    shared = [claim for claim in claims if claim.shared]
    losers: list[Conflict] = []
    if own:
        winner = max(own, key=lambda claim: (not claim.yields, claim.gen, claim.host))
        for loser in {claim.host: claim for claim in own if claim.host != winner.host}.values():
            if not loser.yields:
                text = f"{loser.name} is claimed by {winner.host}, whose claim is newer"
                losers.append(Conflict(loser.host, loser.zone, loser.name, text))
        own = [claim for claim in own if claim.host == winner.host]
    held = own + shared
    cnames = [claim for claim in held if claim.rdtype == "CNAME"]
    if cnames and len({(claim.rdtype, claim.rdata) for claim in held}) > 1:
        others = [claim for claim in held if claim.rdtype != "CNAME"]
        text = "a CNAME cannot be beside other records"
        losers += [Conflict(claim.host, claim.zone, claim.name, f"{claim.name}: {text}") for claim in cnames]
        held = others
    return tuple(sorted(held)), losers


def rrsets(claims: Iterable[Contribution]) -> tuple[RRset, ...]:
    """Return the record sets that claims make together; the lowest TTL of a set's claims holds for it."""
    claims = tuple(claims)
    if len(claims) < 2:
        return tuple(RRset(claim.rdtype, claim.ttl, (claim.rdata,)) for claim in claims)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for claim in claims:
        found[claim.rdtype][claim.rdata] = min(claim.ttl, found[claim.rdtype].get(claim.rdata, claim.ttl))
    return tuple(RRset(rdtype, min(values.values()), tuple(sorted(values))) for rdtype, values in sorted(found.items()))


def _new(claim: Contribution, policy: Policy) -> Change:
    """Return what `_change` does for one claim on a name of which nothing is known."""
    return Change(
        claim.zone,
        claim.name,
        _free_guard(policy),
        (),
        (RRset(claim.rdtype, claim.ttl, (claim.rdata,)),),
        (claim.rdtype,),
        frozenset((claim.host,)),
        mark=policy.ownership == "txt",
    )


def _free_guard(policy: Policy) -> Guard:
    return Guard.ABSENT if policy.ownership == "txt" or policy.conflict == "protect" else Guard.NONE


def _change(
    key: Key,
    winners: tuple[Contribution, ...],
    published: tuple[Contribution, ...],
    unsure: frozenset[str],
    policy: Policy,
    state: State,
) -> Change | Conflict | None:
    before, after = rrsets(published), rrsets(winners)
    standing = state.standing.get(key, Standing.OURS if published else Standing.FREE)
    adopted = key in state.adopted
    if before == after and not unsure and standing is not Standing.FOREIGN and not adopted:
        return None
    if standing is Standing.FREE and not after:
        return None  # unsure, and it turns out that nothing is there
    guard, expected = _guard(standing, before, after, policy, adopted=adopted, foreign=state.foreign.get(key, ()))
    if guard is None:
        if not after:
            return None
        return Conflict(
            "", *key, f"{key[1]} is in use and not ours (no marker); `arv-balance dns adopt {key[1]}` takes it over"
        )
    # Only what differs is sent, unless it is not known what is there.
    changed = {rrset.rdtype for rrset in set(before) ^ set(after)} | unsure
    if standing is not Standing.OURS:
        changed |= {rrset.rdtype for rrset in after}
    return Change(
        zone=key[0],
        name=key[1],
        guard=guard,
        before=tuple(rrset for rrset in before if rrset.rdtype in changed),
        after=after,
        types=tuple(sorted(changed)),
        hosts=frozenset(claim.host for claim in (*winners, *published)),
        expected=expected,
        mark=policy.ownership == "txt" and (not after or standing is not Standing.OURS or bool(unsure) or adopted),
    )


def _guard(
    standing: Standing,
    before: tuple[RRset, ...],
    after: tuple[RRset, ...],
    policy: Policy,
    *,
    adopted: bool,
    foreign: tuple[RRset, ...],
) -> tuple[Guard | None, tuple[RRset, ...]]:
    """Return the prerequisite of a change; None when the name is somebody else's and stays so."""
    if adopted and after:
        return Guard.NONE, ()
    match standing:
        case Standing.FREE:
            return _free_guard(policy), ()
        case Standing.OURS if policy.ownership == "txt":
            return Guard.MARKER, ()
        case Standing.OURS:
            # Without markers a deletion needs the proof that the value is still the one that we wrote.
            return (Guard.VALUE, before) if before and not after else (Guard.NONE, ())
        case Standing.FOREIGN:
            if policy.conflict == "overwrite" and after:
                return Guard.NONE, ()
            equal = {(rrset.rdtype, rrset.rdatas) for rrset in foreign} == {(r.rdtype, r.rdatas) for r in after}
            if policy.conflict == "adopt" and after and equal:
                return Guard.VALUE, foreign
            return None, ()


def brake(going: int, held: int, published: int, limits: Brake, what: str = "hosts") -> str | None:
    """Return why deletions are to be held, or None.

    Args:
        going: hosts that lose all their records by the plan, and that nobody has released.
        held: hosts that are held already, or went just before.
        published: hosts that have records at this target.
        limits: the target's settings.
        what: their word; a name with our marker that has no host counts as one too.
    """
    total = going + held
    if going == 0:
        return None
    if total > limits.hosts:
        return f"{total} {what} would lose all their records, the limit is {limits.hosts}"
    if published >= limits.min_hosts and total > limits.share * published:
        return f"{total} of {published} {what} would lose all their records, the limit is {limits.share:.0%}"
    return None
