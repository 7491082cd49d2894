"""Files that a configuration names: certificates, keys, secrets, and the configuration file itself."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from balancer.config.build import snapshot
from balancer.config.errors import Severity
from balancer.config.file import load
from balancer.config.secrets import SecretError, reveal
from balancer.config.section import Secret
from balancer.errors import ConfigError
from balancer.model import NodeTls
from tests.config.support import NOW, loaded, written

NODES = 'nodes: {a: {url: "http://127.0.0.1:1"}, b: {url: "http://127.0.0.1:2"}}\n'


def certificate(
    folder: Path, stem: str, *names: str, starts_days: int = -1, ends_days: int = 90, password: str = ""
) -> str:
    """Write STEM.pem and STEM.key; returns their path without the suffix."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW + dt.timedelta(days=starts_days))
        .not_valid_after(NOW + dt.timedelta(days=ends_days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{stem}.pem").write_bytes(built.public_bytes(pem))
    (folder / f"{stem}.key").write_bytes(key.private_bytes(pem, private, encryption))
    (folder / f"{stem}.key").chmod(0o600)
    return str(folder / stem)


def faults(text: str, severity: Severity = Severity.ERROR, env: dict[str, str] | None = None) -> list[str]:
    found = loaded(text, env, look_at_files=True).faults
    return [f"{fault.path}: {fault.message}" for fault in found if fault.severity is severity]


def listener(tls: str) -> str:
    return f"listen: [{{bind: '127.0.0.1:1', tls: {{{tls}}}}}]\n{NODES}"


def test_a_good_certificate_is_no_fault_and_reaches_the_snapshot(tmp_path: Path) -> None:
    one, two = certificate(tmp_path, "one", "API.example.org", "*.x.org"), certificate(tmp_path, "two", "b.org")
    text = listener(
        f"cert: {one}.pem, key: {one}.key, certificates: [{{cert: {two}.pem, key: {two}.key, names: [b.org]}}]"
    )
    assert faults(text) == []
    built = snapshot(loaded(text).require(), generation=1)
    tls = built.snapshot.listeners[0].tls
    assert tls is not None
    assert tls.certificates == ((("api.example.org", "*.x.org"), 0), (("b.org",), 1))
    assert built.pems[0] == Path(f"{one}.pem").read_bytes() + b"\n" + Path(f"{one}.key").read_bytes()


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("cert: {0}/no.pem, key: {0}/good.key", "listen[0].tls.cert: cannot read {0}/no.pem: No such file"),
        ("cert: {0}/good.pem, key: {0}/no.key", "listen[0].tls.key: cannot read {0}/no.key: No such file"),
        ("cert: {0}/good.pem, key: {0}/old.key", "listen[0].tls.key: the key in {0}/old.key does not belong"),
        ("cert: {0}/good.pem", "listen[0].tls.cert: {0}/good.pem holds no key"),
        ("cert: {0}/good.key, key: {0}/good.key", "listen[0].tls.cert: {0}/good.key holds no certificate"),
        ("cert: {0}/locked.pem, key: {0}/locked.key", "listen[0].tls.key: the key in {0}/locked.key is encrypted"),
        (
            "certificates: [{{cert: {0}/good.pem, key: {0}/good.key, names: [a.org, c.x.org, d.c.x.org]}}]",
            "listen[0].tls.certificates[0].names[2]: the certificate {0}/good.pem is not for 'd.c.x.org'",
        ),
        (
            "cert: {0}/good.pem, key: {0}/good.key, client_ca: {0}/good.key",
            "listen[0].tls.client_ca: {0}/good.key holds no",
        ),
    ],
)
def test_a_certificate_that_cannot_serve_is_an_error(tmp_path: Path, tls: str, expected: str) -> None:
    certificate(tmp_path, "good", "a.org", "*.x.org")
    certificate(tmp_path, "old", "a.org")
    certificate(tmp_path, "locked", "a.org", password="x")
    (found,) = faults(listener(tls.format(tmp_path)))
    assert found.startswith(expected.format(tmp_path))


@pytest.mark.parametrize(("starts_days", "ends_days", "said"), [(-9, -1, "expired on "), (2, 9, "is valid only from ")])
def test_a_certificate_that_is_not_valid_now_is_a_warning(
    tmp_path: Path, starts_days: int, ends_days: int, said: str
) -> None:
    stem = certificate(tmp_path, "bad", "a.org", starts_days=starts_days, ends_days=ends_days)
    text = listener(f"cert: {stem}.pem, key: {stem}.key")
    assert faults(text) == []
    (found,) = faults(text, Severity.WARNING)
    assert found.startswith(f"listen[0].tls.cert: the certificate {stem}.pem {said}")


def test_a_certificate_that_soon_expires_and_a_key_for_everyone_are_warnings(tmp_path: Path) -> None:
    stem = certificate(tmp_path, "soon", "a.org", ends_days=3)
    Path(f"{stem}.key").chmod(0o644)
    assert faults(listener(f"cert: {stem}.pem, key: {stem}.key"), Severity.WARNING) == [
        f"listen[0].tls.cert: the certificate {stem}.pem expires in 3 days",
        f"listen[0].tls.key: everyone may read the private key in {stem}.key",
    ]


def test_authorities_of_nodes_are_read_and_reach_the_snapshot_once(tmp_path: Path) -> None:
    stem = certificate(tmp_path, "ca", "ca")
    text = f"""\
        listen: [{{bind: "127.0.0.1:1"}}]
        tls: {{ca: {stem}.pem}}
        nodes:
          a: {{url: "https://a"}}
          b: {{url: "https://b", tls: {{ca: {stem}.pem, server_name: c, verify: false}}}}
          d: {{url: "http://d"}}
        """
    assert faults(text) == []
    built = snapshot(loaded(text).require(), generation=1)
    assert [node.tls for node in built.snapshot.nodes] == [NodeTls("a", 0), NodeTls("c", 0, verify=False), None]
    assert built.pems == (Path(f"{stem}.pem").read_bytes(),)
    Path(f"{stem}.pem").unlink()
    assert [fault.partition(":")[0] for fault in faults(text)] == ["tls.ca", "nodes.b.tls.ca"]
    with pytest.raises(ConfigError, match="cannot read"):
        snapshot(loaded(text).require(), generation=2)


def test_secrets_are_looked_at_but_never_shown(tmp_path: Path) -> None:
    good = written(tmp_path, "good", "hunter2\n")
    bad = written(tmp_path, "bad", "hunter2\n", 0o644)
    two = written(tmp_path, "two", "hunter2\nhunter3\n")
    text = f"""\
        listen: [{{bind: "127.0.0.1:3"}}]
        {NODES}
        health: {{token: {{file: {bad}}}}}
        admin:
          listen: "127.0.0.1:2"
          tokens:
            - {{name: a, role: admin, file: {good}}}
            - {{name: b, role: admin, file: {two}}}
            - {{name: c, role: admin, env: NO_SUCH}}
            - {{name: d, role: admin, credential: x}}
            - {{name: e, role: admin, file: {tmp_path}/no}}
            - {{name: f, role: admin, env: HERE}}
        """
    assert faults(text, env={"HERE": "hunter2"}) == [
        f"health.token.file: everyone may read {bad}",
        f"admin.tokens[1].file: {two} does not hold one line of text",
        "admin.tokens[2].env: the environment variable NO_SUCH is not set",
        "admin.tokens[3].credential: the credential x is not there: not started by systemd with it",
        f"admin.tokens[4].file: cannot read {tmp_path}/no: No such file or directory",
    ]


def test_secrets_are_read_anew_each_time(tmp_path: Path) -> None:
    file = written(tmp_path, "token", "one\n")
    secret = Secret(file=str(file))
    assert reveal(secret) == "one"
    file.write_text("two")
    assert reveal(secret) == "two"
    assert reveal(Secret(credential="token"), env={"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "two"
    assert reveal(Secret(env="T"), env={"T": "three"}) == "three"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretError, match="does not hold one line"):
        reveal(secret)


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    assert [fault.message for fault in load(tmp_path / "no.yml").faults] == [
        "cannot read the file: No such file or directory"
    ]
    (tmp_path / "latin.yml").write_bytes(b"cluster: \xe9\n")
    assert [fault.message for fault in load(tmp_path / "latin.yml").faults] == ["the file is not UTF-8 (byte 9)"]
    with pytest.raises(ConfigError, match=r"no\.yml:1:1: error: cannot read the file"):
        load(tmp_path / "no.yml").require()
