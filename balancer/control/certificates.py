"""When the listeners' certificates end, for the metrics."""

from pathlib import Path

from balancer.config.certificates import describe
from balancer.config.schema import Config
from balancer.errors import ConfigError


def ends(config: Config) -> dict[str, float]:
    """Return the end of each certificate as Unix time, by its first name or file. Reads files: call it in a thread."""
    found: dict[str, float] = {}
    for path in _paths(config):
        try:
            described = describe(Path(path).read_bytes(), path)
        except (OSError, ConfigError):
            continue  # the reader of the configuration has said so; the running listeners keep the old one
        found[described.names[0] if described.names else path] = described.not_after.timestamp()
    return found


def _paths(config: Config) -> list[str]:
    found = []
    for listen in config.listen:
        if listen.tls is not None:
            found += [listen.tls.cert] if listen.tls.cert else []
            found += [item.cert for item in listen.tls.certificates]
    return found
