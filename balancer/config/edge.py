"""The client's side: listeners, certificates, header hygiene."""

from typing import Annotated, Literal

from pydantic import Field

from balancer.config.addresses import Bind, Network
from balancer.config.scalars import AbsolutePath, CertName, HeaderName, HostName, Regex, Token
from balancer.config.section import Between, Section, TlsVersion

Networks = tuple[Network, ...]


class Certificate(Section):
    """One certificate of several that a listener chooses from by the name that the client asks for."""

    cert: AbsolutePath = Field(description="PEM file with the certificate and its chain, leaf first.")
    key: AbsolutePath | None = Field(None, description="PEM file with the private key, unless `cert` holds it too.")
    names: tuple[CertName, ...] = Field(
        (), description="Server names it is used for, `*.example.org` too. Empty: the names in the certificate."
    )


class ListenTls(Section):
    """TLS of a listener. Files are read again at each reload."""

    cert: AbsolutePath | None = Field(
        None, description="PEM file with the certificate and its chain, leaf first; the default for unknown names."
    )
    key: AbsolutePath | None = Field(None, description="PEM file with the private key, unless `cert` holds it too.")
    certificates: tuple[Certificate, ...] = Field(
        (), description="Further certificates, chosen by server name (SNI). Without `cert` the first is the default."
    )
    client_ca: AbsolutePath | None = Field(
        None, description="PEM file with the authorities whose client certificates are accepted."
    )
    client_required: bool = Field(
        False, description="Refuse clients without a certificate of `client_ca`; otherwise it is optional."
    )
    minimum_version: TlsVersion | None = Field(None, description="Oldest TLS version; default `tls.minimum_version`.")


class Listen(Section):
    """One address to accept clients on."""

    bind: Bind = Field(
        description="`ADDRESS:PORT`, `[IPV6]:PORT` or `unix:/path`. `0.0.0.0` and `[::]` are all addresses."
    )
    tls: ListenTls | None = Field(None, description="Accept TLS here; without it the listener speaks plain HTTP.")
    proxy_protocol: Networks = Field(
        (), description="Networks that must send a PROXY protocol header (v1 or v2); all others must not."
    )
    backlog: Annotated[int, Between(1, 65535)] = Field(
        4096, description="Connections that may wait in the kernel for a worker; `net.core.somaxconn` caps it."
    )


class TlsDefaults(Section):
    """TLS settings that listeners and nodes use when they set none themselves."""

    minimum_version: TlsVersion = Field("TLSv1.2", description="Oldest TLS version that listeners accept.")
    ca: AbsolutePath | None = Field(
        None, description="PEM file with the authorities that sign node certificates. Default: the system's bundle."
    )


class Forwarding(Section):
    """What is added to and removed from requests on their way to a node."""

    external_client: bool = Field(
        False,
        description="Send `X-External-Client: 0` for clients of `internal_networks`, `1` for all others "
        "(nothing while `internal_networks` is empty).",
    )
    default_host: HostName = Field("localhost", description="Host for HTTP/1.0 requests that name none.")
    via: HostName = Field("arv-balance", description="Our name in the `Via` field.")
    drop_underscore: bool = Field(
        True, description="Remove fields with `_` in their name, which CGI-like servers mix up with `-`."
    )
    drop_dotted: bool = Field(True, description="Remove fields with `.` in their name, for the same reason.")
    upgrade: tuple[Token, ...] = Field(
        ("websocket", "ssh", "tunnel"),
        description="Protocols that a request may switch to (`Upgrade`); others are stripped.",
    )


class RequestId(Section):
    """The id of a request: the same on every attempt, every response and every log line."""

    header: HeaderName = Field("X-Request-Id", description="Field that carries it.")
    format: Literal["arvados", "hex", "uuid"] = Field(
        "arvados",
        description="How a new one looks: `arvados` (`req-` and 20 of `[0-9a-z]`), `hex` (32 digits) or `uuid`.",
    )
    accept: Regex = Field(
        r"\A[A-Za-z0-9._~+/=-]{1,1024}\Z",
        description="Regular expression that an id from a client must match to be kept.",
    )
