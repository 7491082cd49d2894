"""Nothing that a name server, a file system or a shell could misread is ever published."""

import re
from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsupdate.errors import BadNameError, NoReverseZoneError
from dnsupdate.names import ReverseZone, Rules, address, hostname, owner_name, reverse_name, shown

HOSTILE = [
    *["compute7\n", "\ncompute7", "compute7\x00", "compute7\r\nfoo", 'compute7"; rm -rf /', "compute 7", "compute_1"],
    *["10.0.0.1", "cömpute", "\u212a8s", "a" * 64, ".".join("abcd"[n] * 63 for n in range(4)), "a..b", ".", "a.", ""],
    *[
        "$(id)",
        "`id`",
        "../etc/passwd",
        "%{hostname}",
        "{{7*7}}",
        "a;b",
        "a|b",
        "a&b",
        "a'b",
        "ab--cd",
        "@",
        "*",
        "-a",
        "a-",
    ],
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_host_name_is_refused_with_a_message_of_one_clean_line(text: str) -> None:
    with pytest.raises(BadNameError) as caught:
        hostname(text)
    assert re.fullmatch(r"[ -~]+", str(caught.value))


@pytest.mark.parametrize("text", ["compute7", "COMPUTE7", "a.b-c.d1", "xn--bcher-kva", "a" * 63])
def test_a_good_host_name_passes_in_lower_case(text: str) -> None:
    assert hostname(text) == text.lower()


@given(st.text(max_size=80))
def test_whatever_passes_is_letters_digits_hyphens_and_dots(text: str) -> None:
    try:
        name = hostname(text)
    except BadNameError as exc:
        name = str(exc).replace(" ", "").strip("-.") and "refused"
    assert re.fullmatch(r"[a-z0-9.-]+", name)
    assert all(0 < len(label) <= 63 for label in name.split("."))


def test_an_underscore_passes_only_where_the_site_allows_it() -> None:
    assert hostname("compute_1", Rules(allow_underscore=True)) == "compute_1"
    with pytest.raises(BadNameError, match="allow_underscore"):
        hostname("compute_1")


UNFIT = [
    *[
        "",
        "127.0.0.1",
        "::1",
        str(IPv4Address(0)),
        "::",
        "224.0.0.1",
        "ff02::1",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
    ],
    *["::ffff:192.0.2.1", "192.0.2.1\n", "192.0.2.256", "192.0.2.1; id", "255.255.255.255", "0xC0000201", "192.0.2.01"],
]


@pytest.mark.parametrize("text", UNFIT)
def test_an_address_that_no_other_machine_can_use_is_refused(text: str) -> None:
    with pytest.raises(BadNameError) as caught:
        address(text)
    assert re.fullmatch(r"[ -~]+", str(caught.value))


def test_an_address_gets_its_canonical_spelling_and_the_placeholder_is_exempt() -> None:
    assert address("2001:DB8:0::7") == "2001:db8::7"
    assert address("127.40.4.0", Rules(placeholders=frozenset({"127.40.4.0"}))) == "127.40.4.0"
    assert address("127.0.0.9", Rules(allow_loopback=True)) == "127.0.0.9"


@pytest.mark.parametrize(
    "text", ["a.example", "a b.example.", "a..example.", "a.*.example.", ".", 'a".example.', "a" * 250 + ".b."]
)
def test_a_record_name_that_is_not_absolute_or_not_plain_is_refused(text: str) -> None:
    with pytest.raises(BadNameError):
        owner_name(text)


def test_service_and_wildcard_names_pass() -> None:
    assert owner_name("_slurmd._tcp.Cluster.Example.") == "_slurmd._tcp.cluster.example."
    assert owner_name("*.nodes.example.") == "*.nodes.example."


ZONES = tuple(
    ReverseZone(zone=zone, network=ip_network(network))
    for zone, network in [
        ("2.0.192.in-addr.arpa.", "192.0.2.0/24"),
        ("0-63.113.0.203.in-addr.arpa.", "203.0.113.0/26"),
        ("113.0.203.in-addr.arpa.", "203.0.113.0/24"),
        ("10.in-addr.arpa.", "10.0.0.0/8"),
        ("8.b.d.0.1.0.0.2.ip6.arpa.", "2001:db8::/32"),
    ]
)


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("192.0.2.7", "7.2.0.192.in-addr.arpa."),
        ("203.0.113.9", "9.0-63.113.0.203.in-addr.arpa."),
        ("203.0.113.99", "99.113.0.203.in-addr.arpa."),
        ("10.1.2.3", "3.2.1.10.in-addr.arpa."),
        ("2001:db8::7", "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa."),
    ],
)
def test_the_reverse_name_is_in_the_zone_of_the_longest_network(ip: str, name: str) -> None:
    assert reverse_name(ip_address(ip), ZONES) == name


def test_an_address_outside_every_network_has_no_reverse_zone() -> None:
    with pytest.raises(NoReverseZoneError, match=r"no reverse zone for 172\.16\.0\.1"):
        reverse_name(ip_address("172.16.0.1"), ZONES)


@given(st.text(max_size=300))
def test_hostile_text_is_shown_on_one_short_ascii_line(text: str) -> None:
    assert re.fullmatch(r"[ -~]{0,80}", shown(text))
