"""What has to be the same on all nodes: version, discovery document, schema, configuration."""

import hashlib
import json
import re

from balancer.control.doctor.facts import Facts, NodeFacts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, Unseen
from balancer.control.doctor.text import listed, split
from balancer.control.versions import identity

topic = Topic("sameness")
_OWN = ("generatedAt", "etag")  # of the moment or of the process, by design
_LOADED = ("arvados_config_source_timestamp_seconds", "arv_api_config_info")
_SHA = re.compile(r'sha256="([0-9a-f]+)"')


@topic.rule(
    "versions-differ",
    Severity.ERROR,
    looks_at="The members `versions.members` of the document at `versions.path`, on every node.",
    risk="Old and new programs write the same tables, and a client mixes the answers of both.",
    fix="finish the upgrade: arv-balance upgrade status; or upgrade the node that is behind",
)
def versions_differ(facts: Facts) -> Result:
    """One version."""
    found = facts.answers("discovery")
    for node in facts.nodes if facts.config.versions.path else ():
        reply = node.reply("discovery")
        if node.name not in found:
            yield Unseen(f"version of {node.name}", reply.fault or _not_a_document(facts, reply.status))
    members = facts.config.versions.members
    versions = {name: identity(document, members) or "unknown" for name, document in found.items()}
    if odd := split(versions, "version"):
        severity = Severity.WARNING if facts.config.versions.allow_mixed else None
        yield Found(odd[0], odd[1], severity=severity)


def _not_a_document(facts: Facts, status: int) -> str:
    return f"{facts.config.versions.path} answers {status}, or what is no JSON object"


@topic.rule(
    "discovery-differs",
    Severity.ERROR,
    looks_at="The whole discovery document of every node but `generatedAt`.",
    risk="A client keeps the document of one node for hours and calls another with it: methods are missing.",
    fix="the same version and the same configuration on all nodes; the members that differ are named",
)
def discovery_differs(facts: Facts) -> Result:
    """One document."""
    members = set(facts.config.versions.members)
    documents = {
        name: {key: value for key, value in document.items() if key not in _OWN and key not in members}
        for name, document in facts.answers("discovery").items()
    }
    hashes = {name: _digest(document) for name, document in documents.items()}
    if odd := split(hashes, "document"):
        keys = sorted({key for document in documents.values() for key in document})
        differing = [key for key in keys if len({_digest(one.get(key)) for one in documents.values()}) > 1]
        yield Found(odd[0], f"members {listed(differing)} differ; {odd[1]}")


@topic.rule(
    "schema-differs",
    Severity.ERROR,
    looks_at="The level of the database schema that each node sees (`arv_api_migration_version`).",
    risk="The nodes work on different databases, or one was not told of a migration.",
    fix="one database_url on all nodes; arv-balance api migrate",
)
def schema_differs(facts: Facts) -> Result:
    """One schema."""
    levels = {node.name: node.series("arv_api_migration_version") for node in facts.nodes}
    if odd := split({name: f"{found[0][1]:.0f}" for name, found in levels.items() if found}, "schema level"):
        yield Found(*odd)


@topic.rule(
    "config-differs",
    Severity.ERROR,
    looks_at="The configuration that nodes export (`/arvados/v1/config`), and the hash of what they loaded, secrets "
    "included (`arvados_config_source_timestamp_seconds`, `arv_api_config_info`).",
    risk="Limits, lifetimes and secrets differ by the node that a request happens to reach.",
    fix="the same config.yml on all nodes, then restart those that run an older one, one at a time",
)
def config_differs(facts: Facts) -> Result:
    """One configuration."""
    exported = {name: one for name, one in facts.answers("exported").items() if "ClusterID" in one}
    if odd := split({name: _digest(document) for name, document in exported.items()}, "exported configuration"):
        keys = sorted({key for document in exported.values() for key in document})
        differing = [key for key in keys if len({_digest(one.get(key)) for one in exported.values()}) > 1]
        yield Found(odd[0], f"{listed(differing)} differ; {odd[1]}")
    for metric in _LOADED:
        hashes = {node.name: found for node in facts.nodes if (found := _hash(node, metric))}
        if odd := split(hashes, "loaded configuration"):
            yield Found(*odd)


def _hash(node: NodeFacts, metric: str) -> str:
    return next((found[1][:12] for labels, _ in node.series(metric) if (found := _SHA.search(labels))), "")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
