"""Listening: TCP and Unix sockets, and the orderly end of both."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from apiserver.errors import SettingsError


@asynccontextmanager
async def serving(application: web.Application, binds: Iterable[str], *, timeout_s: float) -> AsyncIterator[list[str]]:
    """Serve on `host:port` and `unix:/path` addresses; at the end requests under way get `timeout_s` to finish.

    Yields the bound addresses; port 0 is replaced by the real one.

    Raises:
        SettingsError: an address cannot be bound.
    """
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=timeout_s, keepalive_timeout=75,
        max_line_size=16384, max_field_size=16384,
    )  # fmt: skip
    await runner.setup()
    try:
        for bind in binds:
            try:
                await _site(runner, bind).start()
            except (OSError, ValueError) as exc:
                raise SettingsError(f"listen: {bind} cannot be bound: {exc}") from exc
        yield [_text(address) for address in runner.addresses]
    finally:
        await runner.cleanup()


def _site(runner: web.AppRunner, bind: str) -> web.BaseSite:
    if bind.startswith("unix:"):
        return web.UnixSite(runner, Path(bind.removeprefix("unix:")))
    host, _, port = bind.rpartition(":")
    return web.TCPSite(runner, host.strip("[]") or "127.0.0.1", int(port), backlog=1024)


def _text(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return f"unix:{address}"
