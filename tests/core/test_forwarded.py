"""Only proxies we trust can say for whom they speak."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.core.forwarded import (
    Networks,
    client_address,
    client_behind,
    external_client,
    forwarded_for_value,
    parse_address,
)

TRUSTED = Networks(("10.0.0.0/8", "192.168.1.7", "fd00::/8", "unix:"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        (" 10.0.0.1 ", "10.0.0.1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("10.0.0.1:x", None),
        ("[::1]x", None),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("10.0.0.01", None),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text: str, address: str | None) -> None:
    parsed = parse_address(text)
    assert (None if parsed is None else str(parsed)) == address


networks = st.one_of(
    st.ip_addresses(v=4).flatmap(lambda a: st.integers(0, 32).map(lambda n: f"{a}/{n}")),
    st.ip_addresses(v=6).flatmap(lambda a: st.integers(0, 128).map(lambda n: f"{a}/{n}")),
)


@given(st.lists(networks, max_size=8), st.data())
def test_membership_is_that_of_ipaddress(texts: list[str], data: st.DataObject) -> None:
    address = data.draw(st.ip_addresses())
    if texts:
        inside = ip_network(data.draw(st.sampled_from(texts)), strict=False)
        near = [inside.network_address, inside.broadcast_address]
        after = int(inside.broadcast_address) + 1
        if after < 1 << inside.max_prefixlen:
            near.append(type(near[0])(after))
        address = data.draw(st.sampled_from([*near, address]))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    plain = mapped or address
    as_six = IPv6Address(int(plain) | 0xFFFF << 32) if plain.version == 4 else plain
    expected = any(plain in net or as_six in net for net in (ip_network(text, strict=False) for text in texts))
    found = Networks(texts)
    assert (str(address) in found) is expected
    assert (str(address) in found) is expected  # and once more from the memo


def test_the_memo_is_bounded() -> None:
    found = Networks(("10.0.0.0/8",))
    for number in range(10_000):
        assert str(ip_address(0x0A000000 + number)) in found
    assert len(found._memo) <= 4096


def test_a_text_that_is_no_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        Networks(("nowhere",))


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        ("203.0.113.5", [b"1.2.3.4"], "203.0.113.5"),  # nobody we trust says so
        ("10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", [b"9.9.9.9, 1.2.3.4"], "1.2.3.4"),  # what the client itself wrote is further left
        ("10.0.0.1", [b"9.9.9.9, 1.2.3.4, 10.0.0.2, 192.168.1.7"], "1.2.3.4"),
        ("10.0.0.1", [b"9.9.9.9", b"1.2.3.4,10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", [b"10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [b"1.2.3.4, evil, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [b""], "10.0.0.1"),
        ("unix:", [b"[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:10.0.0.1", [b"1.2.3.4"], "1.2.3.4"),
    ],
)
def test_the_client_is_the_nearest_that_no_trusted_proxy_vouches_away(
    peer: str, lines: list[bytes], client: str
) -> None:
    assert client_address(peer, lines, TRUSTED) == client


def test_behind_a_trusted_proxy_all_lines_count() -> None:
    """A proxy may add a line of its own: the first line is then what the client itself made up."""
    assert client_behind("127.0.0.1", [b"6.6.6.6", b"1.2.3.4"], TRUSTED) == "1.2.3.4"
    assert client_behind("127.0.0.1", [], TRUSTED) == "127.0.0.1"


def test_a_trusted_list_goes_on_and_any_other_is_replaced() -> None:
    assert forwarded_for_value("10.0.0.1", [b"1.2.3.4", b" 5.6.7.8"], TRUSTED) == b"1.2.3.4, 5.6.7.8, 10.0.0.1"
    assert forwarded_for_value("203.0.113.5", [b"1.2.3.4"], TRUSTED) == b"203.0.113.5"
    assert forwarded_for_value("unix:", [], TRUSTED) == b"127.0.0.1"


def test_clients_of_internal_networks_are_not_external() -> None:
    internal = Networks(("10.1.0.0/16",))
    assert external_client("10.1.2.3", internal) == b"0"
    assert external_client("10.2.2.3", internal) == b"1"
    assert external_client("unix:", internal) == b"0"
