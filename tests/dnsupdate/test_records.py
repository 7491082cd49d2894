"""Templates become typed records; what is wrong with them is said at load, with its place."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnsupdate import rdata, template
from dnsupdate.errors import RenderError, SettingsError
from dnsupdate.loader import load
from dnsupdate.records import Contribution, Renderer
from dnsupdate.settings import prefilled
from dnsupdate.template import AddressText, Engine, render
from tests.dnsupdate.builders import host, records, section, settings


def texts(found: tuple[Contribution, ...]) -> set[str]:
    return {f"{one.name} {one.ttl} {one.rdtype} {one.rdata}" for one in found}


def test_a_dual_stack_host_gets_a_aaaa_and_both_ptr() -> None:
    made = Renderer(settings()).render(host("compute7", "192.0.2.7", "2001:db8::7"))
    assert made.faults == ()
    assert texts(made.contributions) == {
        "compute7.cluster.example. 60 A 192.0.2.7",
        "compute7.cluster.example. 60 AAAA 2001:db8::7",
        "7.2.0.192.in-addr.arpa. 60 PTR compute7.cluster.example.",
        "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 60 PTR compute7.cluster.example.",
    }


def test_cname_txt_and_srv_come_from_slot_properties_and_functions() -> None:
    made = Renderer(
        records(
            {"name": "slot{{ '%03d' % slot }}.cluster.example.", "type": "CNAME", "data": "{{ fqdn }}."},
            {
                "name": "{{ fqdn }}.",
                "type": "TXT",
                "data": "{{ txt('uuid=' ~ uuid, 'cpus=' ~ properties.total_cpu_cores) }}",
            },
            {
                "name": "_slurmd._tcp.cluster.example.",
                "type": "SRV",
                "data": "0 0 6818 {{ fqdn }}.",
                "shared": True,
                "ttl": "5m",
            },
            {
                "name": "{{ fqdn }}.",
                "type": "SSHFP",
                "data": "1 2 {{ '00' * 32 }}",
                "when": "{{ ip_address is not none and slot > 3 }}",
            },
        )
    ).render(host(slot=7, properties={"total_cpu_cores": 16}))
    assert made.faults == ()
    assert texts(made.contributions) == {
        "slot007.cluster.example. 60 CNAME compute7.cluster.example.",
        'compute7.cluster.example. 60 TXT "uuid=xarv1-7ekkf-compute7" "cpus=16"',
        "_slurmd._tcp.cluster.example. 300 SRV 0 0 6818 compute7.cluster.example.",
        "compute7.cluster.example. 60 SSHFP 1 2 " + "00" * 32,
    }


def test_a_template_that_does_not_want_a_host_gives_it_nothing() -> None:
    made = Renderer(settings()).render(host("login1"))
    assert made.contributions == ()
    assert made.faults == ()


def test_an_address_without_reverse_zone_is_a_fault_that_names_record_and_host() -> None:
    made = Renderer(settings()).render(host("compute9", "10.0.0.1"))
    assert [str(one) for one in made.faults] == [
        "dns.templates.compute.records[2] for compute9: no reverse zone for 10.0.0.1"
    ]


def test_an_optional_record_without_reverse_zone_is_a_warning() -> None:
    line = {"name": "{{ ptr(item) }}", "each": "ips", "type": "PTR", "data": "{{ fqdn }}.", "optional": True}
    made = Renderer(records(line)).render(host("compute9", "10.0.0.1"))
    assert made.faults == ()
    assert len(made.warnings) == 1


def test_a_host_without_address_disappears_is_kept_or_gets_the_placeholder() -> None:
    lines = section()["templates"]["compute"]["records"]
    gone = host("compute7", ips=())
    assert Renderer(records(*lines)).render(gone).contributions == ()
    assert not Renderer(records(*lines)).render(gone).keeps
    assert Renderer(records(*lines, absent="keep")).render(gone).keeps
    held = Renderer(records(*lines, absent={"placeholder": "127.40.4.0"})).render(gone)
    assert texts(held.contributions) == {"compute7.cluster.example. 60 A 127.40.4.0"}
    assert all(one.yields for one in held.contributions)


def test_a_zone_at_two_targets_gets_the_records_twice_unless_the_record_names_one() -> None:
    zones = [{"name": "cluster.example", "target": "main"}, {"name": "cluster.example", "target": "second"}]
    target = section()["targets"]["main"]
    lines = [
        {"name": "{{ fqdn }}.", "each": "ipv4", "type": "A", "data": "{{ item }}"},
        {"name": "{{ fqdn }}.", "type": "TXT", "data": "{{ txt('x') }}", "target": "second"},
    ]
    found = load(section(targets={"main": target, "second": target}, zones=zones, templates={"c": {"records": lines}}))
    made = Renderer(found).render(host())
    assert sorted((one.target, one.rdtype) for one in made.contributions) == [
        ("main", "A"), ("second", "A"), ("second", "TXT")
    ]  # fmt: skip


BAD_RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"name": "{{ fqdn }}.", "type": "A", "data": "{{ nonsense }}"}, "'nonsense' is undefined"),
    ({"name": "{{ fqdn }}.", "type": "A", "data": "{{ now() }}"}, "'now' is undefined"),
    ({"name": "{{ fqdn }}.", "type": "A", "data": "{{ ips[0] "}, "template line 1"),
    ({"name": "{{ fqdn }}.", "type": "A", "data": "not-an-address"}, "A data"),
    ({"name": "{{ fqdn }}.", "type": "BOGUS", "data": "x"}, "unknown"),
    ({"name": "{{ fqdn }}.", "type": "SOA", "data": "a. b. 1 2 3 4 5"}, "belongs to the server"),
    ({"name": "{{ fqdn }}.", "type": "RRSIG", "data": "x"}, "belongs to the server"),
    ({"name": "{{ fqdn }}.", "type": "CNAME", "data": "{{ fqdn }}"}, "absolute"),
    ({"name": "{{ fqdn }}", "type": "TXT", "data": "x"}, "absolute"),
    ({"name": "x.elsewhere.example.", "type": "TXT", "data": "x"}, "none of the configured zones"),
    ({"name": "cluster.example.", "type": "TXT", "data": "x"}, "apex"),
    ({"name": "_dnsupdate.x.cluster.example.", "type": "TXT", "data": "x"}, "reserved"),
    ({"name": "{{ fqdn }}.", "type": "TXT", "data": "a\n b"}, "control character"),
    ({"name": "{{ fqdn }}.", "type": "TXT", "data": "{{ ''.__class__.__mro__ }}"}, "unsafe"),
    ({"name": "{{ fqdn }}.", "type": "A", "data": "{{ item }}", "each": "hosts"}, "must be one of ips, ipv4, ipv6"),
]


@pytest.mark.parametrize(("line", "message"), BAD_RECORDS)
def test_a_bad_record_is_found_at_load_with_its_place(line: dict[str, Any], message: str) -> None:
    positions: dict[tuple[str | int, ...], tuple[int, int]] = {("templates", "compute", "records", 0): (12, 9)}
    with pytest.raises(SettingsError) as caught:
        load(section(templates={"compute": {"records": [line]}}), positions)
    (fault,) = caught.value.faults
    assert (fault.line, fault.column) == (12, 9)
    assert fault.path[:4] == ("templates", "compute", "records", 0)
    assert message in fault.message


def test_all_faults_of_a_section_come_at_once_with_a_suggestion() -> None:
    bad = section(
        targets={"main": {"kind": "rfc2136", "servers": ["ns1.example"], "key_fiel": "x", "timeout": 5}},
        zones=[{"name": "cluster.example", "target": "man"}],
    )
    with pytest.raises(SettingsError) as caught:
        load(bad, {("targets", "main", "key_fiel", "@key"): (4, 7)})
    found = {str(fault) for fault in caught.value.faults}
    assert "4:7: dns.targets.main.key_fiel: unknown key 'key_fiel' (did you mean 'key_file'?)" in found
    assert any("500ms, 30s" in text for text in found)


def test_references_and_kinds_are_checked() -> None:
    bad = section(
        targets={"main": {"servers": ["ns1.example"]}, "local": {"kind": "files"}},
        zones=[{"name": "cluster.example", "target": "man"}, {"name": "b.example", "target": "local"}],
    )
    with pytest.raises(SettingsError) as caught:
        load(bad)
    found = "\n".join(str(fault) for fault in caught.value.faults)
    assert "no target 'man' (did you mean 'main'?)" in found
    assert "needs 'key_file'" in found
    assert "needs 'dir'" in found
    assert "not an address" in found
    assert "has no zones" in found


def test_prefill_counts_with_leading_zeros() -> None:
    assert prefilled("compute[1-3]") == ("compute1", "compute2", "compute3")
    assert prefilled("c[08-10].x") == ("c08.x", "c09.x", "c10.x")
    assert prefilled(None) == ()


def test_a_classic_template_is_filled_as_before() -> None:
    text = (
        'local-data: "%{hostname}.%{uuid_prefix} IN A %{ip_address}"\n'
        'local-data: "%{ptr_domain} IN PTR %{hostname}"\n# 100%%\n'
    )
    filled = template.classic(text, Renderer(settings()).variables(host()))
    assert filled == (
        'local-data: "compute7.xarv1 IN A 192.0.2.7"\nlocal-data: "7.2.0.192.in-addr.arpa IN PTR compute7"\n# 100%\n'
    )


@pytest.mark.parametrize("bad", ["a\n%{hostnme}", "a\n%s", "a\n50%"])
def test_anything_else_after_a_percent_sign_is_an_error_with_its_line(bad: str) -> None:
    with pytest.raises(RenderError, match="template line 2"):
        template.classic(bad, {"hostname": "x"})


@given(st.lists(st.text(max_size=600), min_size=1, max_size=3))
def test_any_text_survives_a_txt_record(strings: list[str]) -> None:
    quoted = rdata.quote_txt(*strings)
    assert re.fullmatch(r"[ -~]*", quoted)
    import dns.rdata

    found = dns.rdata.from_text("IN", "TXT", rdata.canonical("TXT", quoted))
    assert b"".join(found.strings) == "".join(strings).encode()  # type: ignore[attr-defined]


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=40), min_size=2))
def test_hostile_properties_make_one_record_or_a_fault_never_two(properties: dict[str, str]) -> None:
    line = {"name": "{{ fqdn }}.", "type": "TXT", "data": '"{{ properties.a }}" "{{ properties.b }}"'}
    made = Renderer(records(line)).render(host(properties=properties))
    assert len(made.contributions) + len(made.faults) == 1
    for one in made.contributions:
        assert re.fullmatch(r"[ -~]*", one.rdata)


def test_the_secret_of_a_node_is_not_a_template_variable() -> None:
    found = load(section(info=["ping_secret", "slurm_state"], templates={"c": {"records": []}}))
    kept = host(info={"ping_secret": "s3", "slurm_state": "idle"}).facts()["info"]
    assert kept == {"slurm_state": "idle"}
    assert Renderer(found).variables(host(info=kept))["info"] == {"slurm_state": "idle"}


@given(
    st.lists(
        st.sampled_from(
            ["{{ hostname }}", "{{item}}", "{{ slot }}", "{{ true }}", "%", "%s", ".x.", "\r\n", "}}", "é", "\n"]
        )
    ),
    st.text(max_size=20),
)
def test_a_template_of_plain_variables_gives_what_jinja_gives(parts: list[str], value: str) -> None:
    source, variables = (
        "{{ hostname }}" + "".join(parts),
        {"hostname": value, "item": AddressText("192.0.2.1"), "slot": None},
    )
    compiled = Engine({}).compile(source)
    assert render(compiled, variables) == compiled.template.render(variables)


def test_a_variable_that_is_not_there_is_an_error_also_in_a_plain_template() -> None:
    with pytest.raises(RenderError, match="'nothing' is undefined"):
        render(Engine({}).compile("{{ hostname }}-{{ nothing }}"), {"hostname": "a"})
