"""Where the configuration is: `--config`, then ARV_BALANCE_CONFIG, then the usual places."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from balancer.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from balancer.config.file import Loaded

VARIABLE = "ARV_BALANCE_CONFIG"
PLACES = (Path("arv-balance.yml"), Path("/etc/arv-balance/config.yml"))

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar=VARIABLE,
        metavar="FILE",
        help="Configuration file. (default: ./arv-balance.yml, /etc/arv-balance/config.yml)",
    ),
]
FileArgument = Annotated[
    Path | None,
    typer.Argument(metavar="FILE", help="Configuration file, - is standard input; default as for serve."),
]


def load(path: Path, *, look_at_files: bool) -> "Loaded":
    """Read a configuration to look at it; `-` is standard input."""
    from balancer.config import file

    return file.load(path, look_at_files=look_at_files, stdin=sys.stdin.buffer)


def find(config: Path | None, *, verbose: bool = False) -> Path:
    """Return the configuration file to use. Raises CommandError when there is none.

    `config`: what `ConfigOption` gave, from the command line or the environment.
    """
    found = config or next((place for place in PLACES if place.is_file()), None)
    if found is None:
        raise CommandError(
            "there is no configuration",
            why=f"looked for {' and '.join(map(str, PLACES))}",
            hint="arv-balance config init, or name one with --config",
            code=Exit.CONFIG,
        )
    if verbose:
        sys.stderr.write(f"using {found}\n")
    return found
