"""Files that the configuration names: certificates, keys, authorities, secrets."""

import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from balancer.config import certificates
from balancer.config.edge import Certificate
from balancer.config.errors import Fault, Loc, warning
from balancer.config.rules.context import Context
from balancer.config.secrets import SecretError, reveal
from balancer.errors import ConfigError

_SOON = timedelta(days=14)


def secrets(context: Context) -> Iterator[Fault]:
    """Each secret can be read, by us alone."""
    for loc, secret in context.secrets():
        if len(secret.kinds) != 1 or not context.sound(loc):
            continue
        cluster = context.cluster.id if context.cluster else None
        try:
            reveal(secret, env=context.env, cluster=cluster)
        except SecretError as exc:
            where = (*loc, secret.kinds[0])
            yield Fault(where if context.written(*where) else ("nodes", "from", "arvados"), str(exc), exc.hint)


def listener_certificates(context: Context) -> Iterator[Fault]:
    """Each certificate of a listener can be read, fits its key and is for its names."""
    for loc, listen in context.validated.each(("listen",), context.config.listen):
        tls, here = listen.tls, (*loc, "tls")
        if tls is None or not context.sound(here):
            continue
        if tls.cert:
            yield from _certificate(context, here, Certificate(cert=tls.cert, key=tls.key))
        for item_loc, item in context.validated.each((*here, "certificates"), tls.certificates):
            yield from _certificate(context, item_loc, item)
        if tls.client_ca:
            yield from _authorities((*here, "client_ca"), tls.client_ca)


def _certificate(context: Context, loc: Loc, item: Certificate) -> Iterator[Fault]:
    unreadable = [
        Fault((*loc, key), f"cannot read {path}: {reason}")
        for key, path in (("cert", item.cert), ("key", item.key))
        if path is not None and (reason := _unreadable(path))
    ]
    yield from unreadable
    if unreadable:
        return
    key, key_at = item.key or item.cert, (*loc, "key" if item.key else "cert")
    try:
        described = certificates.describe(Path(item.cert).read_bytes(), item.cert)
    except ConfigError as exc:
        yield Fault((*loc, "cert"), str(exc))
        return
    try:
        certificates.check_pair(item.cert, item.key)
    except ConfigError as exc:
        yield Fault(key_at, str(exc))
    yield from _dates(context, (*loc, "cert"), item.cert, described)
    for index, name in enumerate(item.names):
        if not any(_covers(known, name.lower()) for known in described.names):
            hint = f"it is for {', '.join(described.names) or 'no name at all'}"
            yield Fault((*loc, "names", index), f"the certificate {item.cert} is not for '{name}'", hint)
    if Path(key).stat().st_mode & stat.S_IROTH:
        yield warning(key_at, f"everyone may read the private key in {key}", f"chmod o-r {key}")


def _dates(context: Context, loc: Loc, path: str, described: certificates.Described) -> Iterator[Fault]:
    """Warnings all: refusing the file would keep every other change out, and a restarted balancer down altogether."""
    if described.not_after <= context.now:
        hint = "clients refuse it: renew it, then reload"
        yield warning(loc, f"the certificate {path} expired on {described.not_after:%Y-%m-%d}", hint)
    elif described.not_before > context.now:
        yield warning(loc, f"the certificate {path} is valid only from {described.not_before:%Y-%m-%d %H:%M} UTC")
    elif described.not_after <= context.now + _SOON:
        days = (described.not_after - context.now).days
        yield warning(loc, f"the certificate {path} expires in {days} days", "renew it, then reload")


def _covers(known: str, name: str) -> bool:
    # A wildcard of a certificate stands for one label (RFC 9525 section 6.3).
    return known == name or (known.startswith("*.") and "." in name and name.split(".", 1)[1] == known[2:])


def authorities(context: Context) -> Iterator[Fault]:
    """Bundles of authorities for nodes can be read."""
    config = context.config
    if config.tls.ca:
        yield from _authorities(("tls", "ca"), config.tls.ca)
    base: Loc = ("nodes", "overrides") if context.cluster is not None else ("nodes",)
    for name, node in config.node_map.items():
        if node.tls is not None and node.tls.ca:
            yield from _authorities((*base, name, "tls", "ca"), node.tls.ca)


def _authorities(loc: Loc, path: str) -> Iterator[Fault]:
    reason = _unreadable(path)
    if reason:
        yield Fault(loc, f"cannot read {path}: {reason}")
        return
    try:
        certificates.check_authorities(path)
    except ConfigError as exc:
        yield Fault(loc, str(exc))


def _unreadable(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError as exc:
        return exc.strerror or os.strerror(exc.errno or 0)
    return ""


RULES = (secrets, listener_certificates, authorities)
