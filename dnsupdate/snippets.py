"""Reads the files that the classic strategy wrote, so that their hosts can be taken over. Pure."""

import re
from dataclasses import dataclass

from dnsupdate.errors import BadNameError
from dnsupdate.names import Rules, address, hostname

_DATA = re.compile(
    r'local-data:\s*"(?P<name>\S+?)\.?\s+(?:\d+\s+)?(?:IN\s+)?(?:A|AAAA)\s+(?P<data>[^"\s]+)\s*"', re.IGNORECASE
)
UNUSED = "127.40.4.0"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A host in a file. `ips` empty: the name is unused."""

    hostname: str
    ips: tuple[str, ...]


def parse(file_name: str, text: str, rules: Rules) -> Snippet:
    """Return the host of `compute7.conf`: addresses are those of the names that begin with the file's name.

    Raises:
        BadNameError: the file's name is no host name, or an address cannot be published.
    """
    name = hostname(file_name.removesuffix(".conf"), rules)
    found = [
        match["data"]
        for match in _DATA.finditer(text)
        if match["name"].lower() == name or match["name"].lower().startswith(name + ".")
    ]
    if not found:
        raise BadNameError(f'no `local-data: "{name} IN A ..."` in it')
    ips = [address(ip, rules) for ip in found if ip != UNUSED]
    return Snippet(name, tuple(dict.fromkeys(ips)))
