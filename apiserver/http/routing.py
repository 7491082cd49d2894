"""From method and path to the operation."""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from apiserver.errors import BadRequestError, MethodNotAllowedError, NotFoundError
from apiserver.operation import Operation
from apiserver.schema import UNSUPPORTED

PREFIX = "/arvados/v1/"


@dataclass(frozen=True, slots=True)
class Match:
    """The operation of a request, and the uuid in its path."""

    operation: Operation
    uuid: str = ""


class Router:
    """Finds operations by their paths; a literal segment comes before `{uuid}`."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._literal: dict[tuple[str, ...], dict[str, Operation]] = {}
        self._variable: dict[tuple[str, ...], dict[str, Operation]] = {}
        for operation in operations:
            segments = tuple(operation.path.split("/"))
            if "{uuid}" in segments:
                key = tuple("" if segment == "{uuid}" else segment for segment in segments)
                self._variable.setdefault(key, {})[operation.method] = operation
            else:
                self._literal.setdefault(segments, {})[operation.method] = operation

    def find(self, method: str, raw_path: str) -> Match:
        """Return what a request asks for; PATCH means PUT, HEAD means GET.

        Args:
            method: after override.
            raw_path: as it came, percent-encoded.

        Raises:
            NotFoundError: no such path, or one that this server does not support, with the reason.
            MethodNotAllowedError: the path is known, the method is not.
        """
        method = {"PATCH": "PUT", "HEAD": "GET"}.get(method, method)
        if raw_path.rstrip("/") == "/sys/trash_sweep":  # the one operation that lives outside of the prefix
            raw_path = f"{PREFIX}sys/trash_sweep"
        if not raw_path.startswith(PREFIX):
            raise NotFoundError
        segments = tuple(_decoded(segment) for segment in raw_path.removeprefix(PREFIX).split("/"))
        if len(segments) > 1 and segments[-1] == "":
            segments = segments[:-1]
        if segments[-1].endswith(".json"):
            segments = (*segments[:-1], segments[-1].removesuffix(".json"))
        if reason := UNSUPPORTED.get(segments[0]):
            raise NotFoundError(f"{segments[0]} is not available: {reason}")
        methods = self._literal.get(segments)
        uuid = ""
        if methods is None and len(segments) > 1:
            methods = self._variable.get((segments[0], "", *segments[2:]))
            uuid = segments[1]
        if not methods or (uuid == "" and segments not in self._literal):
            raise NotFoundError
        operation = methods.get(method)
        if operation is None:
            raise MethodNotAllowedError(f"{method} is not allowed here; allowed: {', '.join(sorted(methods))}")
        return Match(operation, uuid)


def _decoded(segment: str) -> str:
    try:
        text = unquote(segment, errors="strict")
    except UnicodeDecodeError as exc:
        raise BadRequestError("the path is not UTF-8") from exc
    if "\x00" in text:
        raise NotFoundError
    return text
