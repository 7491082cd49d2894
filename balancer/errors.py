"""The tree of errors that the balancer raises on purpose."""


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
