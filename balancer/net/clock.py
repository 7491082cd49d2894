"""The only place of the byte path that reads a clock."""

import time

monotonic_ns = time.monotonic_ns


class WallClock:
    """Wall time for log lines, as text: made once a second, milliseconds added to it.

    It is monotonic time plus an offset that `adjust` renews, so a line costs no clock reading.
    """

    __slots__ = ("_combined", "_haproxy", "_iso", "_iso_at", "_iso_text", "_offset_ns", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._iso = self._combined = self._haproxy = b""
        self._iso_at, self._iso_text = -1, b""  # of the last call: all lines of a turn have one time
        self._offset_ns = 0
        self.adjust()

    def adjust(self) -> None:
        """Follow steps of the system's clock; call it about once a second."""
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def _at(self, mono_ns: int) -> int:
        """Set the texts for `mono_ns`; return its milliseconds."""
        second, rest = divmod(mono_ns + self._offset_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            utc, local = time.gmtime(second), time.localtime(second)
            self._iso = time.strftime("%Y-%m-%dT%H:%M:%S", utc).encode()
            self._combined = time.strftime("%d/%b/%Y:%H:%M:%S %z", local).encode()
            self._haproxy = time.strftime("%d/%b/%Y:%H:%M:%S", local).encode()
        return rest // 1_000_000

    def iso(self, mono_ns: int) -> bytes:
        """Return RFC 3339 in UTC with milliseconds."""
        if mono_ns != self._iso_at:
            millis = self._at(mono_ns)
            self._iso_at, self._iso_text = mono_ns, b"%b.%03dZ" % (self._iso, millis)
        return self._iso_text

    def combined(self, mono_ns: int) -> bytes:
        """Return the time of the combined log format."""
        self._at(mono_ns)
        return self._combined

    def haproxy(self, mono_ns: int) -> bytes:
        """Return the accept date of HAProxy's log format."""
        millis = self._at(mono_ns)
        return b"%b.%03d" % (self._haproxy, millis)
