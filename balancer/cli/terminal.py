"""A terminal that is drawn on as a whole and gives single keys; it is as it was before when the context ends."""

import os
import re
import select
import shutil
import sys
import termios
import tty
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

ESCAPE = "\x1b"
KEYS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "back",
    "\x08": "back",
    ESCAPE: "escape",
}
_SEQUENCE = re.compile(r"\x1b(?:\[[0-9;]*[ -/]*[@-~]|O.)")  # Source: ECMA-48 section 5.4


class Terminal:
    """Standard input and output, both a terminal; a context."""

    def __init__(self, keys: TextIO | None = None, screen: TextIO | None = None) -> None:
        self._keys = keys or sys.stdin
        self._screen = screen or sys.stdout
        self._pending = ""  # typed already: people paste, and fast fingers come in one piece

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._keys)
        tty.setcbreak(self._keys)
        self._write("\x1b[?1049h\x1b[?25l")  # another screen, no cursor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write("\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else; what does not fit is cut. Nothing flickers: each line is written over."""
        columns, rows = shutil.get_terminal_size()
        shown = [clip(line, columns) for line in lines[:rows]]
        self._write("\x1b[H" + "\x1b[K\r\n".join(shown) + "\x1b[K\x1b[J")

    def key(self, timeout_s: float) -> str:
        """Return the next key (`up`, `down`, `enter`, `back`, `escape` or a letter), "" when none came in time."""
        if not self._pending:
            ready, _, _ = select.select([self._keys], [], [], max(0.0, timeout_s))
            if ready:
                self._pending = os.read(self._keys.fileno(), 256).decode(errors="replace")
        code, self._pending = first_key(self._pending)
        return KEYS.get(code, "" if code.startswith(ESCAPE) else code)

    def _write(self, text: str) -> None:
        self._screen.write(text)
        self._screen.flush()


def first_key(text: str) -> tuple[str, str]:
    """Return the first key's code in what a terminal sent, and the rest."""
    found = _SEQUENCE.match(text)
    end = found.end() if found else 1
    return text[:end], text[end:]


def clip(line: str, columns: int) -> str:
    """Return a line of at most so many columns; colour codes take no room and are ended."""
    if len(line) <= columns:
        return line
    kept, room, is_colored = "", columns, False
    for index, part in enumerate(line.split(ESCAPE)):
        code, _, text = part.partition("m") if index else ("", "", part)
        if index:
            kept += f"{ESCAPE}{code}m"
            is_colored = code != "[0"
        kept += text[:room]
        room -= min(room, len(text))
    return kept + (f"{ESCAPE}[0m" if is_colored else "")
