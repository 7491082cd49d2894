"""The tree of errors that the balancer raises on purpose, and how text of others is told in a message."""

import re

# What a terminal would act on, or cannot print; the lines of a message are its own.
_UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return `text` with escapes for what a terminal would act on."""
    return _UNFIT.sub(lambda match: ascii(match[0])[1:-1], text)


class BalanceError(Exception):
    """Something the operator can act on; the message says what, where and which value."""


class ConfigError(BalanceError):
    """The configuration cannot be used."""


class StateError(BalanceError):
    """A file under the state directory cannot be used, or could not be written."""


class RefusedError(BalanceError):
    """A safety guard refused the action; nothing was changed."""


class WireError(BalanceError):
    """A message between our own processes is malformed or the other side is gone."""
