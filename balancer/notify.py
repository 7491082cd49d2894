"""Talk to the service manager: readiness, reloads, status and the watchdog (sd_notify(3))."""

import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends state lines to the socket in NOTIFY_SOCKET; does nothing when there is none."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.address = address
        self.watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> "Notifier":
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID."""
        watchdog_us = int(environment.get("WATCHDOG_USEC", "0") or 0)
        if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
            watchdog_us = 0
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog_us / 1e6)

    def ready(self, status: str = "") -> None:
        """Say that start or reload is complete."""
        self._send({"READY": "1", "STATUS": status})

    def reloading(self) -> None:
        """Say that a reload began; MONOTONIC_USEC is what `Type=notify-reload` pairs with READY."""
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)})

    def stopping(self, status: str, extend_s: float) -> None:
        """Say that shutdown began and may take `extend_s`."""
        self._send({"STOPPING": "1", "STATUS": status})
        self.extend(extend_s)

    def extend(self, extend_s: float) -> None:
        """Ask for `extend_s` more before the service manager loses patience."""
        self._send({"EXTEND_TIMEOUT_USEC": str(int(extend_s * 1e6))})

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send({"STATUS": text})

    def watchdog(self) -> None:
        """Say that all is well."""
        self._send({"WATCHDOG": "1"})

    def _send(self, fields: Mapping[str, str]) -> None:
        if not self.address:
            return
        lines = "\n".join(f"{name}={value.replace(chr(10), ' ')}" for name, value in fields.items() if value)
        address = self.address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(lines.encode(), address)
            except OSError:
                return  # a service manager that is gone or slow must not hold the balancer up


def without_service_manager(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process that must not speak in our name."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    return {name: value for name, value in environment.items() if name not in ours}
