"""Questions before something that cannot be undone by itself."""

import sys

from balancer.cli.exits import CommandError, Exit


def confirm(question: str, *, yes: bool, is_machine: bool, word: str = "") -> None:
    """Ask on a terminal; default is no. Raises CommandError when the answer is no or nobody can be asked.

    `word`: what has to be typed for the worst, instead of y.
    """
    if yes:
        return
    if is_machine or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("this needs a yes", why=question, hint="the same with --yes", code=Exit.REFUSED)
    wanted = f"type {word} to go on: " if word else "Go on? [y/N] "
    sys.stderr.write(f"{question}\n{wanted}")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    if answer != word if word else answer.lower() not in {"y", "yes"}:
        raise CommandError("nothing was changed", code=Exit.REFUSED)
