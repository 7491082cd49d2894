"""The configuration file, and what operators changed beside it."""

from datetime import datetime

from balancer.config.errors import Severity as Level
from balancer.control.doctor.facts import Facts
from balancer.control.doctor.finding import Found, Result, Severity, Topic, unseen
from balancer.durations import spell

topic = Topic("configuration")
_PARK = ("park.timeout", "drain.timeout")


@topic.rule(
    "configuration",
    Severity.WARNING,
    looks_at="What `arv-balance check` says of the file, certificates and secrets that it names included.",
    risk="A file that is not valid is refused at the next reload or start; warnings have surprised operators.",
    fix="arv-balance check",
)
def configuration(facts: Facts) -> Result:
    """Everything that `check` reports and no other rule does."""
    for fault in facts.faults:
        if fault.path in _PARK or "expire" in fault.message or "private key" in fault.message:
            continue
        level = Severity.ERROR if fault.severity is Level.ERROR else Severity.WARNING
        line = f":{fault.span.line}" if fault.span else ""
        yield Found(f"{facts.path}{line}", f"{fault.path}: {fault.message}", fault.hint, level)


@topic.rule(
    "config-not-running",
    Severity.WARNING,
    looks_at="Whether the balancer runs what is in the file now.",
    risk="What was changed in the file has no effect, and takes effect at some later restart, by surprise.",
    fix="arv-balance reload",
)
def config_not_running(facts: Facts) -> Result:
    """The file and what runs."""
    if facts.status is None:
        yield from unseen("the running configuration", facts.status_fault)
        return
    running = facts.status["config"]
    last = running["last_reload"]
    if last is not None and not last["ok"]:
        yield Found(facts.path, f"the newest reading was refused: {last['error']}", "arv-balance check", Severity.ERROR)
    elif running["sha256"] != facts.sha256:
        yield Found(facts.path, f"the file is {facts.sha256[:12]}, the balancer runs {running['sha256'][:12]}")


@topic.rule(
    "park-too-short",
    Severity.WARNING,
    looks_at="Whether `park.timeout` is longer than `drain.timeout` and a step of an upgrade.",
    risk="Requests that wait while all nodes are stopped for an upgrade get 503 before the first node is back.",
    fix="park: {timeout: 120s} or more, or a shorter drain.timeout",
)
def park_too_short(facts: Facts) -> Result:
    """A stop-all upgrade parks requests for a drain and a step."""
    park, drain, step = float(facts.config.park.timeout), float(facts.config.drain.timeout), facts.limits.step_s
    if park < drain + step:
        evidence = f"park.timeout {spell(park)}; drain.timeout {spell(drain)} and about {spell(step)} for a step"
        yield Found("park.timeout", evidence, f"park: {{timeout: {spell(drain + step)}}} or more")


@topic.rule(
    "removed-but-listed",
    Severity.WARNING,
    looks_at="Run-time changes that hide what the file says about a node, or that nothing in the file answers to.",
    risk="The file says that a node serves, and it does not.",
    fix="arv-balance nodes forget NODE",
)
def removed_but_listed(facts: Facts) -> Result:
    """What `nodes remove` and `nodes add` left behind."""
    for fault in facts.shadows:
        yield Found(str(fault.loc[-1]), fault.message, fault.hint)


@topic.rule(
    "old-intent",
    Severity.WARNING,
    looks_at="Drained nodes, changed weights and pauses without an end that are older than a day.",
    risk="A drain that was forgotten is missing capacity; a pause that was forgotten is an outage.",
    fix="arv-balance nodes undrain NODE, nodes forget NODE, resume; give an end with --for",
)
def old_intent(facts: Facts) -> Result:
    """What somebody wanted to undo."""
    if facts.status is None:
        yield from unseen("run-time changes", facts.status_fault)
        return
    for intent in facts.status["intents"]:
        age_s = (facts.now - datetime.fromisoformat(intent["at"])).total_seconds()
        if intent["kind"] in ("drain", "pause", "weight") and not intent["until"] and age_s > facts.limits.intent_age_s:
            why = f": {intent['reason']}" if intent["reason"] else ""
            subject = intent["node"] or "all traffic"
            yield Found(subject, f"{intent['kind']} by {intent['who']}, {spell(age_s)} ago{why}")
