"""Reading a request: its real method, its parameters in any encoding, its tokens, where it came from."""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from aiohttp import web

from apiserver.auth import Credentials
from apiserver.errors import BadRequestError, TooLargeError
from apiserver.names import REQUEST_ID, new_request_id
from apiserver.operation import RequestFacts
from apiserver.parameters import FORM, bearer_tokens, from_json, from_pairs, normalise, reader_tokens

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
MAX_TOKENS = 10  # each is a query before anybody is known to have asked
_EPOCH = re.compile(r"dns;epoch=([0-9]{1,18})")
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request before its operation is known."""

    method: str
    path: str
    pairs: list[tuple[str, Any]]
    credentials: Credentials


def request_id(request: web.Request) -> str:
    """Return the id that came with the request if it is usable, else a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if REQUEST_ID.fullmatch(given) else new_request_id()


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return networks by their texts."""
    return tuple(ip_network(text, strict=False) for text in texts)


def client_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """Return the client's address: the last one in X-Forwarded-For that no trusted proxy has.

    A peer on a Unix socket (`peer` "") is trusted. When all are proxies it is the first one named. What stands before
    something that is no address is not looked at.
    """
    found = peer
    named = [_host(part) for part in forwarded.split(",") if part.strip()]
    while named and (not found or _is_in(found, trusted)) and _is_address(named[-1]):
        found = named.pop()
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_in(text: str, networks: Sequence[Network]) -> bool:
    address = ip_address(text)
    return any(address.version == network.version and address in network for network in networks)


def _host(text: str) -> str:
    """Return an address without its port; Arvados' own proxies append one."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def facts(request: web.Request, parsed: Parsed, identity: str, trusted: Sequence[Network]) -> RequestFacts:
    """Return what operations may know of the request."""
    designation = _EPOCH.fullmatch(request.headers.get("X-Arv-Designation", "").strip())
    forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
    return RequestFacts(
        method=parsed.method,
        path=parsed.path,
        request_id=identity,
        client=client_address(_peer(request), forwarded, trusted),
        external=request.headers.get("X-External-Client") == "1",
        designation_epoch=int(designation[1]) if designation else None,
    )


def _peer(request: web.Request) -> str:
    name = request.transport.get_extra_info("peername") if request.transport else None
    return name[0] if isinstance(name, tuple) else ""


async def parse(request: web.Request, max_bytes: int) -> Parsed:
    """Read a request whole.

    Raises:
        BadRequestError: a parameter or the body cannot be read.
        TooLargeError: the body is larger than API.MaxRequestSize.
    """
    pairs: list[tuple[str, Any]] = []
    pairs += from_pairs(request.rel_url.raw_query_string)
    kind = request.content_type if "Content-Type" in request.headers else ""
    if request.body_exists:
        pairs += await _body(request, kind, max_bytes)
    values = dict(pairs)
    method = _method(request, values)
    tokens = [
        *_texts(pairs, "api_token"), *_texts(pairs, "oauth_token"),
        *bearer_tokens(request.headers.get("Authorization")), *_cookie(request),
    ]  # fmt: skip
    remote = values.get("remote")
    credentials = Credentials(
        tuple(dict.fromkeys(tokens))[:MAX_TOKENS],
        reader_tokens(values.get("reader_tokens")),
        remote if isinstance(remote, str) and _remote_allowed(method, request.rel_url.raw_path) else "",
    )
    return Parsed(method, request.rel_url.path, pairs, credentials)


def _method(request: web.Request, values: dict[str, Any]) -> str:
    method = request.method
    if method == "POST":
        wanted = values.get("_method") or request.headers.get("X-Http-Method-Override")
        if wanted is not None:
            method = str(wanted).upper()
    if method not in METHODS:
        raise BadRequestError(f"unknown method {method[:20]!r}")
    return method


async def _body(request: web.Request, kind: str, max_bytes: int) -> list[tuple[str, Any]]:
    if (request.content_length or 0) > max_bytes:
        raise TooLargeError(f"the body is larger than {max_bytes} bytes")
    try:
        if kind == "multipart/form-data":
            found = await request.post()
            return [(name, value) for name, value in found.items() if isinstance(value, str)]
        body = await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise TooLargeError(f"the body is larger than {max_bytes} bytes") from exc
    except (ValueError, web.HTTPException) as exc:
        raise BadRequestError(f"the body cannot be read: {exc}") from exc
    if kind == FORM:
        try:
            return list(from_pairs(body.decode("utf-8")))
        except UnicodeDecodeError as exc:
            raise BadRequestError("the form is not UTF-8") from exc
    if kind in ("", "application/json"):
        return list(from_json(body).items())
    if body.strip():
        raise BadRequestError(f"bodies of type {kind[:60]} are not understood: send application/json or a form")
    return []


def _texts(pairs: Iterable[tuple[str, Any]], name: str) -> list[str]:
    return [value for key, value in pairs if key == name and isinstance(value, str) and value]


def _cookie(request: web.Request) -> list[str]:
    """Return the token in the cookie; it only reads, because a browser sends it with other sites' forms, too."""
    value = request.cookies.get("arvados_api_token", "") if request.method in ("GET", "HEAD") else ""
    try:
        return [base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode("utf-8")] if value else []
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return []


def _remote_allowed(method: str, path: str) -> bool:
    return method == "GET" and path.startswith((
        "/arvados/v1/groups", "/arvados/v1/users/current", "/arvados/v1/api_client_authorizations/current",
    ))  # fmt: skip


def parameters(parsed: Parsed, wrappers: frozenset[str]) -> dict[str, Any]:
    """Return the parameters of a request by name, tokens left out.

    Raises:
        InvalidError: a value cannot be stored.
    """
    found = normalise(parsed.pairs, wrappers)
    for name in ("api_token", "oauth_token", "reader_tokens", "_method", "alt"):
        # A body without its wrapper may well set the attribute api_token: it is a token of the request all the same.
        found.pop(name, None)
    return found
