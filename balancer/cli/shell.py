"""`arv-balance completion` and `man`: for shells and packagers."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """Shells that completion is written for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    epilog = "Example: `arv-balance completion bash > /etc/bash_completion.d/arv-balance`"
    app.command("completion", rich_help_panel="Shell", epilog=epilog)(completion)
    app.command("man", rich_help_panel="Shell", epilog="Example: `arv-balance man | man -l -`")(man)


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell.")]) -> None:
    """Print the completion script of a shell; node names are completed from the running balancer."""
    from typer import completion as scripts

    script = scripts.get_completion_script(  # type: ignore[attr-defined]  # typer's own --show-completion uses it
        prog_name="arv-balance", complete_var="_ARV_BALANCE_COMPLETE", shell=shell.value
    )
    print(script)


def man() -> None:
    """Print the manual page."""
    from balancer.cli.reference import roff

    print(roff(), end="")
