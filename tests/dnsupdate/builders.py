"""Settings and hosts for tests."""

from typing import Any

from dnsupdate.host import Host
from dnsupdate.loader import load
from dnsupdate.settings import Settings

SECTION: dict[str, Any] = {
    "owner": "xarv1",
    "domain": "cluster.example",
    "targets": {"main": {"kind": "rfc2136", "servers": ["127.0.0.1"], "key_file": "/nonexistent/upd.key"}},
    "zones": [
        {"name": "cluster.example", "target": "main"},
        {"name": "2.0.192.in-addr.arpa", "target": "main", "networks": ["192.0.2.0/24"]},
        {"name": "0-63.113.0.203.in-addr.arpa", "target": "main", "networks": ["203.0.113.0/26"]},
        {"name": "8.b.d.0.1.0.0.2.ip6.arpa", "target": "main", "networks": ["2001:db8::/32"]},
    ],
    "templates": {
        "compute": {
            "when": "{{ hostname.startswith('compute') }}",
            "records": [
                {"name": "{{ hostname }}.cluster.example.", "each": "ipv4", "type": "A", "data": "{{ item }}"},
                {"name": "{{ hostname }}.cluster.example.", "each": "ipv6", "type": "AAAA", "data": "{{ item }}"},
                {"name": "{{ ptr(item) }}", "each": "ips", "type": "PTR", "data": "{{ hostname }}.cluster.example."},
            ],
        }
    },
}


def section(**changes: Any) -> dict[str, Any]:
    return {**SECTION, **changes}


def records(*lines: dict[str, Any], **template: Any) -> Settings:
    return load(section(templates={"compute": {"records": list(lines), **template}}))


def settings(**changes: Any) -> Settings:
    return load(section(**changes))


def host(name: str | None = "compute7", *ips: str, **facts: Any) -> Host:
    given = {"uuid": f"xarv1-7ekkf-{name}", "hostname": name, "ips": ips or ("192.0.2.7",), **facts}
    return Host(**given)
