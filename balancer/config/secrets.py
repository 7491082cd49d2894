"""Reads secrets from where the configuration says they are; their values are never part of an error."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from balancer.config import arvados
from balancer.config.section import ClusterSecret, Secret
from balancer.errors import ConfigError

_MAX_BYTES = 64 << 10


class SecretError(ConfigError):
    """A secret cannot be read. `hint` says how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def reveal(secret: Secret, *, env: Mapping[str, str] | None = None, cluster: str | None = None) -> str:
    """Return the secret's value, without the newline at its end. Raises SecretError.

    `cluster` is the cluster id for `arvados`, when the file holds several. Reads a file: call it from a thread in
    asyncio code.
    """
    env = os.environ if env is None else env
    if isinstance(secret, ClusterSecret) and secret.arvados is not None:
        try:
            return arvados.management_token(secret.arvados, cluster=cluster)
        except arvados.ArvadosError as exc:
            raise SecretError(str(exc), exc.hint) from None
    if secret.env is not None:
        value = env.get(secret.env, "")
        if not value:
            raise SecretError(f"the environment variable {secret.env} is not set")
        return value
    if secret.file is not None:
        return _content(Path(secret.file), guarded=True)
    folder = env.get("CREDENTIALS_DIRECTORY", "")
    if not folder or secret.credential is None:
        hint = f"LoadCredential={secret.credential}:/path in the unit"
        raise SecretError(f"the credential {secret.credential} is not there: not started by systemd with it", hint)
    return _content(Path(folder) / secret.credential, guarded=False)


def _content(path: Path, *, guarded: bool) -> str:
    try:
        mode = path.stat().st_mode
        if guarded and mode & stat.S_IROTH:
            raise SecretError(f"everyone may read {path}", f"chmod o-r {path}")
        data = path.read_bytes()
    except OSError as exc:
        raise SecretError(f"cannot read {path}: {exc.strerror}") from None
    try:
        value = data.decode().rstrip("\r\n") if len(data) <= _MAX_BYTES else ""
    except UnicodeDecodeError:
        value = ""
    if not value or any(char in value for char in "\r\n\0"):
        raise SecretError(f"{path} does not hold one line of text")
    return value
