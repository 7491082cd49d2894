"""The control process's own log: for people on a terminal, one JSON object a line elsewhere."""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PRIORITY = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}


def facts(record: logging.LogRecord) -> dict[str, object]:
    """Return what the record holds beside its message."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and value not in ("", None)}


class HumanFormatter(logging.Formatter):
    """`12:03:04 warning api2 is unhealthy: connection refused`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()} "
        extra = {name: value for name, value in facts(record).items() if name not in {"action", "node", "actor"}}
        rest = " ".join(f"{name}={value}" for name, value in extra.items())
        line = f"{at} {level}{record.getMessage()}" + (f"  ({rest})" if rest else "")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object; `journald`: with the priority that the journal reads off the front."""

    def __init__(self, *, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        body = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **facts(record),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        line = json.dumps(body, default=str)
        return f"<{_PRIORITY.get(record.levelname, 6)}>{line}" if self._journald else line


def configure(level: str, *, journald: bool) -> None:
    """Send this process's log to standard error at `level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if sys.stderr.isatty() else JsonFormatter(journald=journald))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
