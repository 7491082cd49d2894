"""Background work, and parts of the API that cannot run on several nodes."""

from balancer.control.doctor.facts import Document, Facts, methods
from balancer.control.doctor.finding import Found, Result, Severity, Topic, unseen
from balancer.control.doctor.text import listed
from balancer.durations import spell

topic = Topic("work")
_UNSUPPORTED = {
    "jobs": "the jobs API keeps state in files of one host",
    "job_tasks": "the jobs API keeps state in files of one host",
    "pipeline_instances": "pipelines need the jobs API",
    "repositories": "git repositories are files of one host",
    "keep_disks": "the node manager's tables are written by one host",
}
_OURS = "arv_api_migration_version"


@topic.rule(
    "unsupported-api",
    Severity.ERROR,
    looks_at="Whether the nodes offer jobs, pipelines, repositories or the node manager's own interface for writing.",
    risk="What one node writes into files of its host, the others do not see.",
    fix="API: {DisabledAPIs: {jobs.create: {}, pipeline_instances.create: {}, repositories.create: {}}} in config.yml",
)
def unsupported_api(facts: Facts) -> Result:
    """What can be created there."""
    if len(facts.nodes) < 2:
        return
    for name, document in facts.answers("discovery").items():
        offered = [kind for kind in _UNSUPPORTED if "create" in methods(document, kind)]
        if offered:
            yield Found(name, f"offers {listed(offered)}: {_UNSUPPORTED[offered[0]]}")


@topic.rule(
    "job-on-every-node",
    Severity.WARNING,
    looks_at="Whether nodes that are not ours delete audit logs: each guards that by a file on its own host.",
    risk="Several nodes delete the same rows at once: they wait for each other, deadlock, or stop half-way.",
    fix="AuditLogs: {MaxDeleteBatch: 0} in config.yml of all nodes but one, or arv-balance api, whose jobs run once",
)
def job_on_every_node(facts: Facts) -> Result:
    """Audit logs; the trash sweep of old versions."""
    others = [node.name for node in facts.nodes if not node.series(_OURS)]
    if len(others) < 2:
        return
    if facts.cluster is not None and facts.cluster.audit_batch:
        evidence = f"AuditLogs.MaxDeleteBatch is {facts.cluster.audit_batch}; {listed(others)} each delete"
        yield Found("audit logs", evidence)
    old = [name for name, document in facts.answers("discovery").items() if name in others and _is_old(document)]
    if len(old) > 1:
        fix = "upgrade to a version that sweeps under a lock in the database"
        yield Found("trash", f"{listed(old)} run Arvados 1.x and sweep the trash, each for itself", fix)


def _is_old(document: Document) -> bool:
    version = document.get("packageVersion")
    return isinstance(version, str) and version.startswith(("0.", "1."))


@topic.rule(
    "job-overdue",
    Severity.WARNING,
    looks_at="The periodic jobs of our own API nodes, by the database's clock: overdue, or failed.",
    risk="Trash is not emptied, logs grow, tokens that are over stay in the table.",
    fix="arv-balance api jobs; arv-balance api jobs run NAME",
)
def job_overdue(facts: Facts) -> Result:
    """Time since the last run."""
    if facts.jobs is None:
        if any(node.series(_OURS) for node in facts.nodes):
            yield from unseen("periodic jobs", facts.jobs_fault)
        return
    for job in facts.jobs:
        if job.last_error:
            yield Found(job.name, f"failed: {job.last_error}")
        elif not job.is_running and job.next_in_s < -(facts.limits.job_slack_s + job.every_s):
            yield Found(job.name, f"was due {spell(-job.next_in_s)} ago and runs every {spell(job.every_s)}")
