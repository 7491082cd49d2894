"""The plan of an upgrade: a YAML file of commands, checked like the configuration, each fault with its place."""

import os
import re
import shlex
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError

from balancer.config import messages
from balancer.config.errors import (
    Fault,
    Loc,
    Severity,
    as_text,
    did_you_mean,
    misspelt,
    ordered,
    placed,
    without_echoes,
)
from balancer.config.loader import Document, parse
from balancer.config.scalars import Duration, Name, Rate, bad, spelled, within
from balancer.config.section import Secret, Section
from balancer.errors import ConfigError

PLACEHOLDERS = ("node", "host", "url")
Limit = Annotated[Duration, within("1s", "24h")]


class PlanError(ConfigError):
    """The plan cannot be used. `faults` are all of them, `report` shows them with their places."""

    def __init__(self, path: str, faults: Sequence[Fault], report: str) -> None:
        super().__init__(f"{path} has {len(faults)} error{'' if len(faults) == 1 else 's'}")
        self.faults, self.report = tuple(faults), report


def _as_mapping(value: object) -> object:
    return {"run": value} if isinstance(value, str | tuple | list) else value


def _words(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return value
    raise bad(f"{spelled(value)} is no command", "write a text, or a list of texts")


class Command(Section):
    """One command. A text is split at its blanks as a shell would, without running one; a list is taken as it is."""

    run: Annotated[str | tuple[str, ...], PlainValidator(_words)] = Field(
        description="The command, with `{node}`, `{host}` and `{url}`."
    )
    shell: bool = Field(False, description="`true`: run the text by /bin/sh. Placeholders are quoted for it.")
    timeout: Limit | None = Field(None, description="Then it is ended and has failed. Default: the plan's.")

    def arguments(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """Return what to execute for one node."""
        if isinstance(self.run, str) and self.shell:
            return "/bin/sh", "-c", self.run.format_map({name: shlex.quote(value) for name, value in values.items()})
        parts = shlex.split(self.run) if isinstance(self.run, str) else self.run
        return tuple(part.format_map(values) for part in parts)


class Migrate(Command):
    """The command that changes the database. It runs for the first node only."""

    database: Secret | None = Field(
        None, description="Secret with a PostgreSQL DSN: the command runs under an advisory lock of that database."
    )


Run = Annotated[Command, BeforeValidator(_as_mapping)]
RunOnce = Annotated[Migrate, BeforeValidator(_as_mapping)]


class Plan(Section):
    """How the nodes are upgraded."""

    version: Literal[1] = Field(1, description="Version of this format.")
    mode: Literal["stop-all", "rolling"] = Field(
        description="`stop-all`: requests wait while all nodes are down, versions never mix. `rolling`: one node after "
        "the other, for changes that are known to be compatible."
    )
    nodes: tuple[Name, ...] = Field((), description="Which nodes, in this order. Default: all, as configured.")
    hosts: dict[Name, str] = Field(
        {}, description="`{host}` of nodes that are reached by another name than their URL has."
    )
    stop: Run | None = Field(None, description="Stops a node.")
    upgrade: Run | None = Field(None, description="Installs the new version.")
    migrate: RunOnce | None = Field(None, description="Changes the database, for the first node only.")
    start: Run | None = Field(None, description="Starts a node. Has to return while the node goes on.")
    timeout: Limit = Field(Duration(300), description="For each command.")
    ready: Limit = Field(Duration(60), description="Within this a started node has to answer its checks.")
    expect: dict[str, str] = Field(
        {}, description="Members of the version document (`versions.path`) and what they have to be afterwards."
    )
    hold: Limit | None = Field(
        None, description="The pause of `stop-all` ends by itself after this. Default: park.timeout."
    )
    drain: Limit | None = Field(None, description="For what is under way at a node. Default: drain.timeout.")
    cut: bool = Field(False, description="`true`: end by force what is still under way then.")
    release: Rate | None = Field(None, description="At this rate requests go on afterwards. Default: park.release.")

    def commands(self) -> Iterator[tuple[str, Command]]:
        """Yield the commands that are set, with their keys."""
        for key in ("stop", "upgrade", "migrate", "start"):
            command = getattr(self, key)
            if command is not None:
                yield key, command


@dataclass(frozen=True, slots=True)
class _Shown:
    """The file as faults show it."""

    path: str
    lines: Sequence[str]


def load(path: Path) -> Plan:
    """Read and check a plan. Raises PlanError with all faults."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise _unread(path, f"cannot read the file: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise _unread(path, f"the file is not UTF-8 (byte {exc.start})") from exc
    return check(parse(text, str(path), os.environ))


def check(document: Document) -> Plan:
    """Return the plan in a parsed document. Raises PlanError with all faults."""
    if not isinstance(document.data, dict):
        faults = document.faults or (Fault((), "the file has to be a mapping", "begin with mode: stop-all"),)
        raise _refused(document, faults)
    plan, found = None, list(document.faults)
    found += [Fault(loc, "is empty", "give it a value, or remove the line", at_key=True) for loc in document.empties]
    try:
        plan = Plan.model_validate(document.data)
    except ValidationError as exc:
        found += [messages.fault(error, Plan) for error in exc.errors(include_url=False)]
    meant = misspelt(found, document.spans)
    found = without_echoes(fault for fault in found if fault.loc not in meant)
    if plan is not None and not found:
        found += _unfit(plan)
    if plan is None or any(fault.severity is Severity.ERROR for fault in found):
        raise _refused(document, found)
    return plan


def from_command(command: str) -> Plan:
    """Return the plan of `upgrade --exec`: rolling, one shell command a node. Raises PlanError."""
    plan = Plan(mode="rolling", upgrade=Command(run=command, shell=True))  # noqa: S604 - the operator's own words
    faults = _unfit(plan)
    if faults:
        text = "; ".join(f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in faults)
        raise PlanError("--exec", faults, text)
    return plan


def _unfit(plan: Plan) -> list[Fault]:
    faults = [fault for key, command in plan.commands() for fault in _unfit_command(key, command)]
    if not any(plan.commands()):
        faults.append(Fault((), "a plan without a command changes nothing", "give it stop, upgrade and start"))
    if plan.stop is not None and plan.start is None:
        faults.append(Fault(("stop",), "nodes are stopped and never started", "add start", at_key=True))
    if plan.mode == "rolling" and plan.hold is not None:
        faults.append(Fault(("hold",), "a rolling upgrade pauses nothing", "remove it, or write mode: stop-all"))
    doubles = {name for name in plan.nodes if plan.nodes.count(name) > 1}
    faults += [Fault(("nodes",), f"{name} stands there twice") for name in sorted(doubles)]
    return faults


def _unfit_command(key: str, command: Command) -> Iterator[Fault]:
    loc: Loc = (key,)
    texts = [command.run] if isinstance(command.run, str) else list(command.run)
    if command.shell and not isinstance(command.run, str):
        yield Fault(loc, "a shell takes a text, not a list", "write one text, or remove shell")
    if not any(text.strip() for text in texts):
        yield Fault(loc, "the command is empty")
    try:
        names = [name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as exc:
        yield Fault(loc, f"the braces do not match: {exc}", "write {{ and }} for braces of the command itself")
        return
    for name in names:
        if name not in PLACEHOLDERS:
            hint = did_you_mean(name, PLACEHOLDERS) or "write {{ and }} for braces of the command itself"
            yield Fault(loc, f"there is no {{{name}}}; there are {{node}}, {{host}} and {{url}}", hint)
    if isinstance(command.run, str) and not command.shell:
        yield from _unfit_words(loc, command.run)


def _unfit_words(loc: Loc, text: str) -> Iterator[Fault]:
    try:
        words = shlex.split(text)
    except ValueError as exc:
        yield Fault(loc, f"cannot be split into words: {exc}", "close the quotes")
        return
    signs = [word for word in words if re.fullmatch(r"\|\|?|&&?|;|[0-9]?>>?|<", word) or word.endswith(";")]
    if signs:
        yield Fault(loc, f"{signs[0]!r} means something to a shell only", "write {run: ..., shell: true}")


def _refused(document: Document, faults: Sequence[Fault]) -> PlanError:
    shown = ordered(_placed(fault, document) for fault in faults)
    return PlanError(document.path, shown, as_text(shown, _Shown(document.path, document.lines)))


def _placed(fault: Fault, document: Document) -> Fault:
    return placed(fault, fault.span or document.place(fault.loc, at_key=fault.at_key))


def _unread(path: Path, message: str) -> PlanError:
    return PlanError(str(path), [Fault((), message)], f"error: {path}: {message}")
