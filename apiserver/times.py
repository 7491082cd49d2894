"""Timestamps as clients write and read them; exact to the microsecond both ways."""

import re
from datetime import UTC, datetime, timedelta

_COMPACT_SPACE = re.compile(r"(\d)\s+([+-]\d\d:?\d\d|Z|UTC)\Z")


def format_time(moment: datetime | None) -> str | None:
    """Return `YYYY-MM-DDTHH:MM:SS.nnnnnnnnnZ` in UTC, always with nine decimals."""
    if moment is None:
        return None
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "000Z"


def parse_time(text: str) -> datetime:
    """Return a moment written as ISO 8601 in any of its spellings; without a zone it is UTC.

    Raises:
        ValueError: it is not a moment between the years 1 and 9999.
    """
    text = text.strip()
    if match := _COMPACT_SPACE.search(text):
        text = text[: match.start() + 1] + ("Z" if match[2] == "UTC" else match[2])
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError(f"{text!r} is outside the years 1 to 9999") from exc


def parse_duration(text: str) -> timedelta:
    """Return a duration written as Go does: `336h0m0s`, `60s`, `1h30m`, `500ms`; a bare number is seconds.

    Raises:
        ValueError: it is not a duration.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|us|h|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 336h or 1m30s")
    seconds = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
    return timedelta(seconds=sum(float(number) * seconds[unit] for number, unit in parts))


def format_duration(duration: timedelta) -> str:
    """Return a duration as Go prints it: `336h0m0s`, `1m0s`, `10s`."""
    seconds = int(duration.total_seconds())
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
