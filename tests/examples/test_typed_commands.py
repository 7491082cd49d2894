"""What pages tell people to type can be typed: each command is there, with these options and arguments."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer._click.exceptions import MissingParameter, UsageError
from typer.main import get_command

from balancer.cli import build

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
TYPED = re.compile(r"^\s*\$ (arv-balance .*)$|`(arv-balance [^`]*)`", re.MULTILINE)
GRAMMAR = re.compile(r"[|…\[{<>]| · ")  # a pattern of commands, or one with more behind it: not to be typed as it is

PLACEHOLDERS = {"ENGINE": "haproxy", "N": "2"}  # of what is no text


def typed() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for shown, named in TYPED.findall(page.read_text()):
            command = re.sub(r"\s+", " ", (shown or named).partition(" #")[0]).strip()
            command = re.split(r"[;,] |(?<=doctor): ", command)[0]  # what follows is about it
            if not GRAMMAR.search(command):
                yield str(page.relative_to(ROOT)), command


def refusal(command: str) -> str:
    """Why the option parser refuses a command, "" when it does not. Nothing is run."""
    found: Any = get_command(build())
    words, context = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)[1:]], None
    try:
        while True:
            context = found.make_context("arv-balance", words, parent=context)
            rest = [*context._protected_args, *context.args] if hasattr(found, "commands") else []
            if not rest:
                return ""
            _, found, words = found.resolve_command(context, rest)
    except MissingParameter:
        return ""  # a page may name a command without what belongs behind it
    except UsageError as exc:
        return str(exc)


@pytest.mark.parametrize(("page", "command"), sorted(set(typed())))
def test_a_command_of_a_page_can_be_typed(page: str, command: str) -> None:
    assert refusal(command) == "", page


def test_a_command_that_is_none_is_refused() -> None:
    assert "unexpected extra argument" in refusal("arv-balance nodes add api4 http://10.0.0.14:8003")
    assert "No such command" in refusal("arv-balance dns snow")
    assert "No such option" in refusal("arv-balance status --jsn")
