"""Rendered text into files: whole or not at all, one file a document."""

import os
import tempfile
from pathlib import Path

SEPARATOR = "\n--- # dynamic configuration\n"  # Traefik takes two files


def documents(text: str, out: Path) -> dict[Path, str]:
    """Return what goes into which file. A second document goes beside the first, as `OUT-STEM.dynamic.yml`."""
    first, separator, second = text.partition(SEPARATOR)
    if not separator:
        return {out: text}
    return {out: first + "\n", out.with_suffix(".dynamic" + (out.suffix or ".yml")): second}


def write(text: str, out: Path) -> list[Path]:
    """Write the documents and return their paths. Raises OSError; each file is then its old or its new self."""
    written = documents(text, out)
    for path, content in written.items():
        _replace(path, content)
    return list(written)


def _replace(path: Path, content: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
