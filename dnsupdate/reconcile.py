"""A zone as it is, and as the table says it should be -> what to repair. Pure.

Looked at are only names that the table has, and names with our marker; everything else is somebody else's.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dnsupdate.plan import Policy, rrsets
from dnsupdate.records import MARKER_LABEL, Contribution
from dnsupdate.transfer import Content
from dnsupdate.update import marker_text

Triple = tuple[str, str, str]  # zone, name, type


@dataclass(frozen=True, slots=True)
class Findings:
    """What differs. `drifted`: to be sent again; `orphans`: ours by their marker, but no host's (types by commas)."""

    drifted: tuple[Triple, ...] = ()
    orphans: tuple[Triple, ...] = ()
    texts: tuple[str, ...] = ()


def compare(
    zone: str,
    content: Content,
    published: Iterable[Contribution],
    unsure: Collection[Triple],
    policy: Policy,
    types: Collection[str],
) -> Findings:
    """Return the differences of a zone.

    Args:
        zone: its name.
        content: all that is in it.
        published: all that the table says we have there.
        unsure: what is to be sent anyway.
        policy: whose markers are ours.
        types: record types that templates can make; other types at an orphan's name stay.
    """
    wanted: dict[str, list[Contribution]] = defaultdict(list)
    for found in published:
        wanted[found.name].append(found)
    drifted: list[Triple] = []
    texts: list[str] = []
    for name, claims in wanted.items():
        differing = _differing(name, claims, content, policy)
        drifted += [(zone, name, rdtype) for rdtype, _ in differing]
        texts += [text for _, text in differing]
    known = {*wanted, *(name for _, name, _ in unsure)}
    orphans = _orphans(zone, content, known, policy, types)
    texts += [f"{name} has our marker and belongs to no host" for _, name, _ in orphans]
    return Findings(tuple(sorted(set(drifted))), tuple(orphans), tuple(texts))


def _differing(name: str, claims: list[Contribution], content: Content, policy: Policy) -> list[tuple[str, str]]:
    here = content.get(name, {})
    found = []
    for rrset in rrsets(claims):
        ttl, data = here.get(rrset.rdtype, (0, frozenset()))
        if data != frozenset(rrset.rdatas):
            shown = ", ".join(sorted(data)) or "nothing"
            found.append((rrset.rdtype, f"{name} {rrset.rdtype}: {shown} instead of {', '.join(rrset.rdatas)}"))
        elif ttl != rrset.ttl:
            found.append((rrset.rdtype, f"{name} {rrset.rdtype}: TTL {ttl} instead of {rrset.ttl}"))
    if policy.ownership == "txt" and not _is_marked(name, content, policy):
        found += [(claim.rdtype, f"{name}: our marker is gone") for claim in claims[:1]]
    return found


def _is_marked(name: str, content: Content, policy: Policy) -> bool:
    _, data = content.get(MARKER_LABEL + name, {}).get("TXT", (0, frozenset()))
    return data == frozenset({marker_text(policy.owner)})


def _orphans(
    zone: str, content: Content, known: Collection[str], policy: Policy, types: Collection[str]
) -> list[Triple]:
    if policy.ownership != "txt":
        return []
    found = []
    for marker in content:
        name = marker.removeprefix(MARKER_LABEL)
        if name == marker or name in known or not _is_marked(name, content, policy):
            continue
        here: Mapping[str, object] = content.get(name, {})
        found.append((zone, name, ",".join(sorted(set(here) & set(types))) or "TXT"))
    return sorted(found)
