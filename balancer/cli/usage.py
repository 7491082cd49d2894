"""What is wrong with a value on the command line, in our words instead of the option parser's."""

import re
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from balancer.config.errors import did_you_mean

_KINDS: Mapping[str, str] = {
    "int_parsing": "{input!r} is not a whole number",
    "float_parsing": "{input!r} is not a number",
    "greater_than_equal": "{input} is too small: at least {ge:g}",
    "less_than_equal": "{input} is too large: at most {le:g}",
}


class Commands(TyperGroup):
    """The root of the tree, through which all usage errors of its commands come."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as exc:
            exc.message = _plain(exc)
            raise


def _plain(exc: typer.BadParameter) -> str:
    found = getattr(exc.__cause__, "errors", None)  # of the validation library, when it was that
    error: dict[str, Any] = found()[0] if found is not None else {"type": ""}
    if error["type"] in _KINDS:
        return _KINDS[error["type"]].format(input=error["input"], **error.get("ctx", {}))
    text = exc.message.removeprefix("Value error, ")
    choices = re.fullmatch(r"(?P<word>.+) is not one of (?P<known>.+)\.", text)
    if choices is None:
        return text
    known = [name.strip("' ") for name in choices["known"].split(",")]
    nearest = did_you_mean(choices["word"].strip("'"), known)
    return f"{choices['word']} is not one of {', '.join(known)}" + (f"; {nearest}" if nearest else "")
