"""Manifests: their grammar, their hash, the signatures on their block locators. Pure; the time is an argument.

A line is a stream name, block locators, and file segments `position:length:name`; each line ends with a newline.
"""

import hmac
import re
from dataclasses import dataclass
from hashlib import md5

EMPTY_PDH = "d41d8cd98f00b204e9800998ecf8427e+0"
_EMPTY_BLOCK = "d41d8cd98f00b204e9800998ecf8427e"
_LOCATOR = re.compile(r"([0-9a-f]{32})\+([0-9]{1,20})((?:\+[A-Z][-A-Za-z0-9@_]*)*)")
_SEGMENT = re.compile(r"([0-9]{1,20}):([0-9]{1,20}):(\S+)", re.ASCII)  # spaces of other scripts are letters here
_STREAM = re.compile(r"\.(?:/[^/\s]+)*", re.ASCII)
_SIGNATURE = re.compile(r"\+A([0-9a-f]{40})@([0-9a-f]{8})")
_LOCATOR_IN_TEXT = re.compile(r"(?<= )([0-9a-f]{32})(\+[0-9]+)((?:\+[A-Z][-A-Za-z0-9@_]*)*)(?=[ \n])")
MAX_BLOCK = 1 << 63


@dataclass(frozen=True, slots=True)
class Contents:
    """What a manifest holds."""

    file_count: int
    file_size_total: int


def parse(manifest: str) -> Contents:
    """Return how many files a manifest names and their size; equal names in one stream are one file.

    Raises:
        ValueError: a line breaks the grammar; the message says where.
    """
    if manifest and not manifest.endswith("\n"):
        raise ValueError("the manifest does not end with a newline")
    files: set[str] = set()
    size = 0
    for number, line in enumerate(manifest.split("\n")[:-1], 1):
        size += _parse_line(number, line, files)
    if size >= MAX_BLOCK:
        raise ValueError("the files are larger than 8 EiB")
    return Contents(len(files), size)


def _parse_line(number: int, line: str, files: set[str]) -> int:
    words = line.split(" ")
    if not _STREAM.fullmatch(words[0]) or any(part in (".", "..") for part in words[0].split("/")[1:]):
        raise ValueError(f"line {number}: stream name {words[0][:60]!r} must be . or ./name")
    position, available, size = 1, 0, 0
    while position < len(words) and (match := _LOCATOR.fullmatch(words[position])):
        available += int(match[2])
        position += 1
    if position == 1 or position == len(words):
        raise ValueError(f"line {number}: needs at least one block locator and one file segment")
    for word in words[position:]:
        segment = _SEGMENT.fullmatch(word)
        if segment is None:
            raise ValueError(f"line {number}: {word[:60]!r} is no file segment position:length:name")
        if int(segment[1]) + int(segment[2]) > available:
            raise ValueError(f"line {number}: segment {word[:60]!r} reaches beyond the stream's {available} bytes")
        if any(part in ("", ".", "..") for part in segment[3].split("/")) and segment[3] != ".":
            raise ValueError(f"line {number}: file name {segment[3][:60]!r} is not allowed")
        if segment[3] != ".":
            files.add(f"{words[0]}/{segment[3]}")
        size += int(segment[2])
    return size


def stripped(manifest: str) -> str:
    """Return the manifest with every signature removed, other hints kept."""
    return _SIGNATURE.sub("", manifest)


def portable_data_hash(manifest: str) -> str:
    """Return the hash and length of the manifest with each locator reduced to hash and size."""
    plain = _LOCATOR_IN_TEXT.sub(lambda match: match[1] + match[2], manifest).encode()
    return f"{md5(plain, usedforsecurity=False).hexdigest()}+{len(plain)}"


@dataclass(frozen=True, slots=True)
class Signer:
    """Makes and checks the permission signatures of block locators: `+A{40 hex}@{expiry}`."""

    key: str
    token: str
    ttl_s: int

    def _signature(self, block: str, expiry: str) -> str:
        message = f"{block}@{self.token}@{expiry}@{self.ttl_s:x}"
        return hmac.new(self.key.encode(), message.encode(), "sha1").hexdigest()

    def sign(self, manifest: str, expiry: int) -> str:
        """Return the manifest with a signature on every locator, good until `expiry` (Unix seconds)."""
        text = f"{expiry:08x}"

        def signed(match: re.Match[str]) -> str:
            hints = _SIGNATURE.sub("", match[3])
            return f"{match[1]}{match[2]}{hints}+A{self._signature(match[1], text)}@{text}"

        return _LOCATOR_IN_TEXT.sub(signed, manifest)

    def unsigned(self, manifest: str, now: int) -> list[str]:
        """Return the blocks whose locator has no good signature; the empty block needs none."""
        wrong = []
        for match in _LOCATOR_IN_TEXT.finditer(manifest):
            if match[1] == _EMPTY_BLOCK:
                continue
            signature = _SIGNATURE.search(match[3])
            if signature is None or int(signature[2], 16) < now or not self._good(match[1], signature):
                wrong.append(match[1])
        return wrong

    def _good(self, block: str, signature: re.Match[str]) -> bool:
        return hmac.compare_digest(self._signature(block, signature[2]), signature[1])
