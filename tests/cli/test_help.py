"""What `--help` shows in a terminal is what the options are described as: brackets are markup there, and vanish."""

import re

import pytest
from typer.testing import CliRunner

from balancer.cli.reference import Command, commands
from balancer.cli.tree import tree


def shown(words: str) -> str:
    """The help, in one line without its frames."""
    arguments = [*words.split()[1:], "--help"]
    done = CliRunner().invoke(tree(), arguments, env={"COLUMNS": "250", "TERMINAL_WIDTH": "250"})
    assert done.exit_code == 0, done.output
    return plain(done.output)


def plain(text: str) -> str:
    return " ".join(re.sub("[─-╿]", " ", text).split())


def test_an_epilog_is_broken_where_the_terminal_ends_and_at_no_line_of_ours() -> None:
    for words, command in commands():
        for paragraph in (command.epilog or "").split("\n\n"):
            assert "\n" not in paragraph.strip(), words


@pytest.mark.parametrize(("words", "command"), [pytest.param(*found, id=found[0]) for found in commands()])
def test_every_word_of_a_help_text_is_shown(words: str, command: Command) -> None:
    text = shown(words)
    described = [param.help for param in command.params if getattr(param, "help", None)]
    for described_as in filter(None, (command.help, command.epilog, *described)):
        assert plain(described_as) in text
