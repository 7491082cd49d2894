"""Exit codes and the one way in which a command fails."""

from enum import IntEnum

from balancer.errors import printable


class Exit(IntEnum):
    """Exit codes of every command; documented in the help and in docs/cli.md."""

    DONE = 0
    NO = 1  # done, but the answer is "no" or "bad": degraded, differences, a failed operation
    USAGE = 2
    CONFIG = 3
    UNREACHABLE = 4  # the admin API does not answer
    DEADLINE = 5
    REFUSED = 6  # by a safety guard; --force overrides
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot go on: what happened, why, and the next command to type."""

    def __init__(self, what: str, *, why: str = "", hint: str = "", code: Exit = Exit.NO) -> None:
        super().__init__(what)
        self.what, self.why, self.hint, self.code = what, why, hint, code

    def __str__(self) -> str:
        lines = [f"error: {self.what}", self.why and f"  {self.why}", self.hint and f"  try: {self.hint}"]
        return printable("\n".join(line for line in lines if line))
