"""What the schema cannot say: names that must exist, values that must fit together, files that must be usable.

Each rule is a generator over a `Context`; adding one is adding it to a table. Rules see a whole configuration even
when parts of the file are broken (defaults stand in), and ask `sound` before they judge a value.
"""

from collections.abc import Callable, Iterable

from balancer.config.errors import Fault
from balancer.config.rules import files, fit, lessons, names
from balancer.config.rules.context import Context

Rule = Callable[[Context], Iterable[Fault]]
__all__ = ["Context", "errors", "warnings"]


def errors(context: Context) -> list[Fault]:
    """Return what makes the file unusable, and what the files that it names have to teach."""
    rules: list[Rule] = [*names.RULES, *fit.RULES]
    if context.look_at_files:
        rules += files.RULES
    return [fault for rule in rules for fault in rule(context)]


def warnings(context: Context) -> list[Fault]:
    """Return what is allowed and should be known."""
    return [fault for rule in lessons.RULES for fault in rule(context)]
