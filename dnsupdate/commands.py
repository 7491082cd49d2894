"""Runs an operator's command: an argument list, never a shell, with a time limit."""

import asyncio
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dnsupdate import template
from dnsupdate.errors import CommandFailedError, RenderError

_OUTPUT = 2000


def filled(argv: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """Fill `%{name}` in each argument; a value can never become a second argument or an option's name.

    Raises:
        RenderError: an unknown name, or a value at the start of an argument that would read as an option.
    """
    made = [template.classic(argument, variables) for argument in argv]
    for before, after in zip(argv, made, strict=True):
        if after.startswith("-") and not before.startswith("-"):
            raise RenderError(f"argument {before} became an option")
    return made


async def run(argv: Sequence[str], *, variables: Mapping[str, str], timeout_s: float) -> str:
    """Run a command and return what it said; the variables are also in its environment as ARV_HOSTNAME and so on.

    Raises:
        CommandFailedError: it cannot be started, ended with another status than 0, or took too long.
    """
    env = {**os.environ, **{f"ARV_{name.upper()}": value for name, value in variables.items()}}
    shown = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as exc:
        raise CommandFailedError(f"{shown}: {exc.strerror}") from exc
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    except TimeoutError:
        raise CommandFailedError(f"{shown}: not done after {timeout_s:g} s, killed") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    text = output.decode(errors="replace").strip()[-_OUTPUT:]
    if process.returncode:
        said = ascii(text)[1:-1] or "it said nothing"
        raise CommandFailedError(f"{shown}: status {process.returncode}: {said}")
    return text
