"""The command reference, read off the command tree: docs/cli.md and the manual page."""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Protocol

import typer

from balancer import __version__
from balancer.cli.tree import EPILOG, tree

_INTRO = """Every command of `arv-balance`, generated from the command tree. Data goes to standard output, talk and
progress to standard error; tables are plain when piped; `--json` prints documents with a version. Actions return
when they are true (`--no-wait` does not wait) and say what they would do with `--dry-run`."""


class Command(Protocol):
    """What is used of a node of the tree."""

    name: str | None
    help: str | None
    epilog: str | None
    hidden: bool
    params: list[Any]


def commands() -> Iterator[tuple[str, Command]]:
    """Yield every command with its words, groups before what is in them."""
    root: Any = typer.main.get_command(tree())
    yield from _walk(root, "arv-balance")


def _walk(command: Any, words: str) -> Iterator[tuple[str, Command]]:
    yield words, command
    for name in sorted(getattr(command, "commands", {})):
        if not command.commands[name].hidden:
            yield from _walk(command.commands[name], f"{words} {name}")


def usage(words: str, command: Command) -> str:
    """Return the line that shows how to type it."""
    parts = [words]
    if any(_is_option(param) for param in command.params):
        parts.append("[OPTIONS]")
    for param in command.params:
        if not _is_option(param):
            name = _metavar(param)
            parts.append(name if param.required else f"[{name}]")
    if getattr(command, "commands", None):
        parts.append("COMMAND")
    return " ".join(parts)


def options(command: Command) -> list[tuple[str, str]]:
    """Return spelling and meaning of each argument and option."""
    found = []
    for param in command.params:
        if getattr(param, "hidden", False) or param.name in {"install_completion", "show_completion"}:
            continue
        if not _is_option(param):
            found.append((_metavar(param), str(getattr(param, "help", "") or "")))
            continue
        spelled = ", ".join([*param.opts, *param.secondary_opts]) + (f" {_metavar(param)}" if not param.is_flag else "")
        found.append((spelled, _meaning(param)))
    return found


def markdown() -> str:
    """Return docs/cli.md."""
    lines = ["# Commands", "", _INTRO, "", _plain(EPILOG), ""]
    for words, command in commands():
        if words == "arv-balance":
            continue
        lines += [f"## {words}", "", f"    {usage(words, command)}", "", _plain(command.help or ""), ""]
        found = options(command)
        if found:
            lines += ["| | |", "|---|---|"]
            lines += [f"| `{spelled}` | {meaning} |".replace("\n", " ") for spelled, meaning in found]
            lines.append("")
        if command.epilog:
            lines += [_plain(command.epilog), ""]
    return "\n".join(lines).rstrip() + "\n"


def roff() -> str:
    """Return the manual page. Source: man-pages(7), groff_man(7)."""
    lines = [
        f'.TH ARV-BALANCE 1 "" "arv-balance {__version__}" "User Commands"',
        ".SH NAME",
        "arv-balance \\- balance requests over identical API servers",
        ".SH SYNOPSIS",
        ".B arv-balance",
        "COMMAND [OPTIONS]",
        ".SH DESCRIPTION",
        _escaped(_plain(_INTRO)),
        ".SH COMMANDS",
    ]
    for words, command in commands():
        if words == "arv-balance":
            continue
        lines += [".SS " + _escaped(usage(words, command)), _escaped(_plain(command.help or ""))]
        for spelled, meaning in options(command):
            lines += [".TP", f".B {_escaped(spelled)}", _escaped(meaning)]
        if command.epilog:
            lines += [".PP", _escaped(_plain(command.epilog))]
    lines += [".SH EXIT STATUS", _escaped(_plain(EPILOG))]
    return "\n".join(lines) + "\n"


def _is_option(param: Any) -> bool:
    return bool(param.param_type_name == "option")


def _metavar(param: Any) -> str:
    if param.metavar:
        return str(param.metavar)
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return str(param.name).upper() if not _is_option(param) else "VALUE"


def _meaning(param: Any) -> str:
    text = str(param.help or "")
    if param.envvar:
        text += f" (`{param.envvar}`)"
    default = getattr(param.default, "value", param.default)
    if default not in (None, "", False, ()) and not callable(default) and "default:" not in text and not param.is_flag:
        text += f" [default: {default}]"
    return text


def _plain(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip())


def _escaped(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("-", "\\-").replace("`", "")
    return re.sub(r"(?m)^([.'])", r"\\&\1", escaped)
