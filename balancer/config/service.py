"""The balancer as a service: admin API, state, log, versions, workers."""

from typing import Literal

from pydantic import Field

from balancer.config.addresses import Bind, NodeUrl
from balancer.config.scalars import AbsolutePath, HostName, LogPath, Name, ParameterName, UrlPath
from balancer.config.section import Secret, Section


class AdminToken(Section):
    """A token of the admin API; its secret is in one of `file`, `env`, `credential`."""

    name: Name = Field(description="Who it is, in events and intents.")
    role: Literal["viewer", "operator", "admin"] = Field(
        description="`viewer` reads, `operator` also drains, weighs and pauses, `admin` may do all."
    )
    file: AbsolutePath | None = Field(None, description="File that holds the token; refused when others may read it.")
    env: str | None = Field(None, description="Environment variable that holds the token.")
    credential: Name | None = Field(None, description="Name of a systemd credential that holds the token.")

    @property
    def secret(self) -> Secret:
        """Where the token is kept."""
        return Secret(file=self.file, env=self.env, credential=self.credential)


class Admin(Section):
    """How operators and tools reach the balancer."""

    socket: AbsolutePath = Field(
        "/run/arv-balance/admin.sock", description="Unix socket of the admin API; who may open it is an admin."
    )
    listen: Bind | None = Field(
        None,
        description="Address of the admin API, dashboard and `/metrics`, plain HTTP. Calls need a token; without any "
        "configured, this machine may look.",
    )
    hosts: tuple[HostName, ...] = Field(
        (), description="Names that `listen` is reached by, beside this machine's own; requests to others are refused."
    )
    tokens: tuple[AdminToken, ...] = Field((), description="Tokens for `listen`; they open the dashboard, too.")


class Peer(Section):
    """Another balancer in front of the same nodes."""

    admin: NodeUrl | None = Field(
        None,
        description="Where its admin API is (`http://HOST:PORT`, `https://HOST:PORT`, `unix:/path`); it is asked for "
        "its status every 3 s. Without it no more than its existence is known.",
    )
    token: Secret | None = Field(None, description="Token of a `viewer` there.")


class State(Section):
    """What is kept over restarts."""

    dir: AbsolutePath = Field(
        "/var/lib/arv-balance", description="Folder for intents, the upgrade journal and run-time sockets."
    )
    database: Secret | None = Field(
        None, description="Secret with a PostgreSQL DSN, for what several balancers share (`store: postgres`)."
    )


class Log(Section):
    """The access log, and how much is said besides."""

    access: Literal["json", "combined", "haproxy", "off"] = Field("json", description="Format of the access log.")
    path: LogPath = Field("-", description="File of the access log; `-` is standard output.")
    redact: tuple[ParameterName, ...] = Field(
        ("api_token", "ping_secret", "reader_tokens"),
        description="Query parameters and fields whose values never reach a log. Authorization and Cookie never do.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="What else is logged.")


class Versions(Section):
    """A node that runs another version than the others is *mismatched* and takes no requests."""

    allow_mixed: bool = Field(False, description="`true`: nodes of different versions serve beside each other.")
    path: UrlPath | None = Field(
        None, description="Path of a JSON document of every node that tells its version. Without it none is compared."
    )
    members: tuple[str, ...] = Field(
        ("packageVersion", "source_version", "sourceVersion", "version", "revision", "schemaVersion"),
        description="Members of that document that make up the version; those that it does not have are left out.",
    )
