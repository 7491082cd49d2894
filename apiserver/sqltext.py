"""Building SQL whose every value is a parameter; names come from the tables of `apiserver.schema` alone."""

from dataclasses import dataclass, field

from apiserver.errors import InvalidError

MAX_VALUES = 32_767  # asyncpg sends no more with one statement


@dataclass(slots=True)
class Binder:
    """Collects the parameters of one statement."""

    values: list[object] = field(default_factory=list)

    def bind(self, value: object, sql_type: str) -> str:
        """Return the placeholder of a value, with its type.

        Raises:
            InvalidError: the request has more values than a statement takes.
        """
        if len(self.values) >= MAX_VALUES:
            raise InvalidError(f"too many values: at most {MAX_VALUES}")
        self.values.append(value)
        return f"${len(self.values)}::{sql_type}"


def quote(name: str) -> str:
    """Return an identifier; `groups` and `user` are words of SQL."""
    return '"' + name.replace('"', '""') + '"'


def any_of(conditions: list[str]) -> str:
    """Return the disjunction; of nothing it is false."""
    return f"({' OR '.join(conditions)})" if conditions else "false"


def all_of(conditions: list[str]) -> str:
    """Return the conjunction; of nothing it is true."""
    return " AND ".join(conditions) if conditions else "true"
