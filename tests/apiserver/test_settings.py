"""Settings out of Arvados' config.yml and out of a node's own file; all faults at once, no secret shown."""

from pathlib import Path

import pytest

from apiserver.errors import SettingsError
from apiserver.settings import Login, TestUser
from apiserver.settingsfile import load

ARVADOS = """
Clusters:
  zzzzz:
    SystemRootToken: systemroottokensystemroottoken
    ManagementToken: managementtoken
    PostgreSQL:
      ConnectionPool: 7
      Connection: {host: /run/postgresql, user: arvados, password: "p w/d", dbname: arv, client_encoding: UTF8}
    Services:
      Controller: {ExternalURL: "https://api.example", InternalURLs: {"http://127.0.0.1:8003": {}}}
      Websocket: {ExternalURL: "wss://ws.example/websocket"}
      Workbench2: {ExternalURL: "https://wb.example"}
    API: {MaxConcurrentRequests: 5, RequestTimeout: 1m30s, DisabledAPIs: {"collections.list": {}}}
    AuditLogs: {MaxAge: 24h, MaxDeleteBatch: 10, UnloggedAttributes: {manifest_text: {}}}
    Collections: {BlobSigningKey: k, BlobSigningTTL: 48h, TrashSweepInterval: 0s}
    Users: {AnonymousUserToken: anon}
    Login:
      Test: {Enable: true, Users: {ada: {Email: ada@example.org, Password: pw}}}
      TrustedClients: {"https://w": {}}
    Containers:
      MaxDispatchAttempts: 3
      SLURM: {Managed: {ComputeNodeDomain: nodes.example, AssignNodeHostname: "n%<slot_number>03d"}}
    StorageClasses: {default: {Default: true}, archive: {}}
    Mail: {MailchimpAPIKey: ignored}
"""
OWN = """
cluster: xarv1
listen: unix:/run/a.sock
external_url: https://api.example/
database_url: postgresql:///x
system_root_token: {file: TOKEN}
api: {max_concurrent_requests: 3, RequestTimeout: 10s}
login: {test_users: {ada: {email: ada@example.org, password: pw}}}
stop_delay_s: 1m30s
database_pool: "5"
trusted_proxies: 10.0.0.0/8
"""


def _load(folder: Path, text: str, **environ: str) -> object:
    path = folder / "config.yml"
    path.write_text(text.replace("TOKEN", str(folder / "token")))
    return load(path, environ)


def test_arvados_own_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(ARVADOS)
    found = load(path, {})
    assert (found.cluster, found.listen, found.external_url) == ("zzzzz", ("127.0.0.1:8003",), "https://api.example/")
    assert found.database_url == "postgresql:///arv?host=%2Frun%2Fpostgresql&password=p%20w%2Fd&user=arvados"
    assert (found.database_pool, found.api.max_concurrent_requests, found.api.request_timeout_s) == (7, 5, 90)
    assert found.api.disabled_apis == ("collections.list",)
    assert (found.audit_logs.max_age_s, found.audit_logs.unlogged_attributes) == (86400, ("manifest_text",))
    assert (found.collections.blob_signing_key, found.collections.trash_sweep_interval_s) == ("k", 0)
    assert (found.containers.max_dispatch_attempts, found.nodes.compute_node_domain) == (3, "nodes.example")
    assert found.nodes.assign_node_hostname == "n%<slot_number>03d"
    assert found.websocket_url == "wss://ws.example/websocket"
    assert found.login == Login(trusted_clients=("https://w",), test_users=(TestUser("ada", "ada@example.org", "pw"),))
    assert "pw" not in repr(found.login)
    assert found.external_urls["Workbench2"] == "https://wb.example/"
    assert set(found.storage_classes) == {"default", "archive"}
    assert not any(secret in repr(found) for secret in ("systemroottoken", "managementtoken", "p%20w", "anon'", "='k'"))


def test_a_nodes_own_file_is_read_with_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secretsecretsecret\n")
    path = tmp_path / "node.yml"
    path.write_text(OWN.replace("TOKEN", str(tmp_path / "token")))
    found = load(path, {})
    assert (found.system_root_token, found.listen) == ("secretsecretsecret", ("unix:/run/a.sock",))
    assert (found.api.max_concurrent_requests, found.api.request_timeout_s) == (3, 10)
    assert (found.stop_delay_s, found.database_pool, found.trusted_proxies) == (90.0, 5, ("10.0.0.0/8",))
    assert found.login.test_users == (TestUser("ada", "ada@example.org", "pw"),)
    assert load(path, {"DATABASE_URL": "postgresql:///y"}).database_url == "postgresql:///y"


def test_all_faults_come_at_once_each_with_its_key(tmp_path: Path) -> None:
    wrong = "cluster: TOOLONG\nexternal_url: ftp://x\nnosuch: 1\napi: {nosuch: 1, request_timeout_s: soon}\nusers: 5\n"
    wrong += "login: {test_users: {ada: {email: a@b}}}\ndatabase_pool: ten\nstop_delay_s: later\nexternal_urls: x\n"
    wrong += "trusted_proxies: 10.0.0.0/99\nlisten: 5\n"
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, wrong)
    lines = str(caught.value).splitlines()
    for fault in ("nosuch:", "api.nosuch", "api.request_timeout_s", "users:", "login.test_users: ada", "cluster",
                  "system_root_token", "external_url", "database_pool", "stop_delay_s", "external_urls:",
                  "trusted_proxies: '10.0.0.0/99'", "listen: "):  # fmt: skip
        assert sum(fault in line for line in lines) >= 1, fault
    assert all(str(tmp_path) in line for line in lines)


def test_of_an_unknown_key_the_nearest_is_told_and_known_ones_are_listed_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, "clustr: aaaaa\nqux: 1\nxyz: 2\nnodes: {asign_node_hostname: x}\nsystem_root_token: t\n")
    lines = [line.removeprefix(f"{tmp_path}/").partition(": ")[2] for line in str(caught.value).splitlines()]
    assert lines[0] == "clustr: unknown key; did you mean 'cluster'?"
    assert lines[1].startswith("qux: unknown key; known keys: api, audit_logs, cluster,")
    assert lines[2:4] == [
        "xyz: unknown key", "nodes.asign_node_hostname: unknown key; did you mean 'assign_node_hostname'?",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "Clusters: {}", "Clusters: {aaaaa: {}, bbbbb: {}}"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        _load(tmp_path, text)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nosuch\.yml: cannot be read"):
        load(tmp_path / "nosuch.yml", {})
