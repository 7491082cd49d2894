"""`arv-balance import` on files as people write them: what is carried over, what is listed, how it ends."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from balancer.config.file import load
from balancer.importing.importer import Imported, read

HAPROXY = """
global
    log /dev/log local0
    maxconn 4000
    stats socket /run/haproxy/admin.sock level admin
defaults
    mode http
    timeout connect 5000
    timeout client 50s
    timeout server 1m
    option forwardfor
frontend web
    bind *:80
    bind :443 ssl crt /etc/ssl/api.pem alpn h2,http/1.1
    acl is_static path_beg /static/
    acl is_images path_beg /images
    acl host_b hdr(host) -i B.example.org
    acl host_b hdr_end(host) -i .b.example.org
    http-request redirect scheme https unless { ssl_fc }
    http-request deny if { req.body_size gt 1048576 }
    use_backend static if is_static or is_images
    use_backend b if host_b { method GET HEAD }
    use_backend c if !is_static
    default_backend app
backend app
    balance leastconn
    cookie SRV insert
    option httpchk GET /health
    http-check expect status 200
    default-server inter 3s rise 4
    server app1 10.0.0.1:8080 check weight 10 maxconn 50
    server app2 10.0.0.2:8080 check weight 20 send-proxy
backend static
    server s1 10.0.1.1:80 check
    server s2 10.0.1.2:80 check backup
backend b
    timeout server 5m
    server app1 10.0.0.1:8080
backend c
    server c1 10.0.1.9:80
listen stats
    bind :8404
    stats enable
    stats auth admin:hunter2
userlist people
    user joe insecure-password hunter3
"""

NGINX = """
user www-data;
events { worker_connections 768; }
http {
    include mime.types;
    gzip on;
    client_max_body_size 20m;
    log_format mine '$remote_addr';
    upstream app {
        ip_hash;
        server 10.0.0.1:8080 weight=3;  # app1
        server 10.0.0.2:8080 max_conns=7 fail_timeout=5s;
    }
    upstream old { server 10.0.0.9; }
    server { listen 80; server_name api.example.org; return 301 https://$host$request_uri; }
    server {
        listen 443 ssl http2;
        server_name api.example.org;
        ssl_certificate /etc/ssl/api.pem;
        ssl_certificate_key /etc/ssl/api.key;
        location / {
            proxy_pass http://app;
            proxy_set_header Host $host;
            proxy_set_header X-Secret word;
            proxy_read_timeout 5m;
            proxy_next_upstream error timeout;
        }
        location = /exact { proxy_pass http://old; proxy_read_timeout 10s; }
        location /api/v1/ { proxy_pass http://old; }
        location /rewritten/ { proxy_pass http://old/other/; }
        location ~ \\\\.php$ { proxy_pass http://old; }
        location /files/ { root /srv; }
    }
    server { listen 81; server_name other.example.org; location / { proxy_pass http://10.0.0.77:99; } }
}
"""


def imported(folder: Path, name: str, text: str, service: str | None = None) -> Imported:
    path = folder / name
    path.write_text(dedent(text))
    return read(path, service=service)


def lost(found: Imported) -> dict[str, str]:
    return {item.text: item.why for item in found.lost}


def test_a_haproxy_front_end_becomes_a_configuration(tmp_path: Path) -> None:
    found = imported(tmp_path, "haproxy.cfg", HAPROXY)
    assert found.loaded.errors == ()
    config = found.loaded.config
    assert [str(listen.bind) for listen in config.listen] == ["0.0.0.0:80", "0.0.0.0:443"]
    assert config.listen[1].tls is not None
    assert config.listen[1].tls.cert == "/etc/ssl/api.pem"
    assert {name: (str(node.url), node.weight, node.capacity) for name, node in config.node_map.items()} == {
        "app1": ("http://10.0.0.1:8080", 10, 50),
        "app2": ("http://10.0.0.2:8080", 20, 0),
        "s1": ("http://10.0.1.1:80", 1, 0),
        "s2": ("http://10.0.1.2:80", 1, 0),
    }
    assert (config.balance.policy, config.limits.connections, int(config.limits.body)) == (
        "least_requests",
        4000,
        1048576,
    )
    assert (str(config.timeouts.connect), str(config.timeouts.response)) == ("5s", "1m")
    assert (config.health.path, str(config.health.interval), config.health.rise) == ("/health", "3s", 4)


def test_its_backends_become_routes_in_their_order(tmp_path: Path) -> None:
    config = imported(tmp_path, "haproxy.cfg", HAPROXY).loaded.config
    routes = [(route.name, route.match.path, route.match.host, route.match.methods) for route in config.routes]
    assert routes == [
        ("static", "/static/*", None, ()),
        ("static-2", "/images/*", None, ()),
        ("b", None, "b.example.org", ("GET", "HEAD")),
        ("b-2", None, "*.b.example.org", ("GET", "HEAD")),
        ("app", None, None, ()),  # the rest goes to these two alone, not to the nodes of the other backends
    ]
    assert config.routes[0].to is not None
    assert config.routes[0].to.designated == "static"
    assert config.designated["static"].order == ("s1", "s2")
    assert str(config.routes[2].timeout) == "5m"
    assert config.routes[4].to is not None
    assert config.routes[4].to.nodes == ("app1", "app2")


def test_what_haproxy_says_and_we_cannot_is_listed_with_its_line(tmp_path: Path) -> None:
    found = imported(tmp_path, "haproxy.cfg", HAPROXY)
    said = lost(found)
    assert set(said) == {
        "bind :443 ssl crt /etc/ssl/api.pem alpn h2,http/1.1",
        "http-request redirect scheme https unless { ssl_fc }",
        "use_backend static if is_static or is_images",
        "use_backend c if !is_static",
        "cookie SRV insert",
        "server app2 10.0.0.2:8080 check weight 20 send-proxy",
        "backend c",
        "listen stats",
        "userlist people",
        "stats socket /run/haproxy/admin.sock level admin",
    }
    assert said["server app2 10.0.0.2:8080 check weight 20 send-proxy"] == "of this line: send-proxy"
    lines = dedent(HAPROXY).splitlines()
    assert all(lines[item.line - 1].strip() == item.text for item in found.lost)


def test_passwords_are_not_repeated(tmp_path: Path) -> None:
    text = HAPROXY.replace("    default_backend app", "    stats auth joe:hunter2\n    default_backend app")
    found = imported(tmp_path, "haproxy.cfg", text)
    shown = found.text + json.dumps(found.report())
    assert "stats auth ***" in shown
    assert "hunter" not in shown


def test_another_front_end_is_read_when_it_is_named(tmp_path: Path) -> None:
    text = HAPROXY + "frontend second\n    bind :81\n    default_backend c\n"
    config = imported(tmp_path, "haproxy.cfg", text, "second").loaded.config
    assert (list(config.node_map), str(config.listen[0].bind)) == (["c1"], "0.0.0.0:81")


def test_an_nginx_server_becomes_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "mime.types").write_text("types { text/html html; }\n")
    found = imported(tmp_path, "nginx.conf", NGINX)
    assert found.loaded.errors == ()
    config = found.loaded.config
    assert [str(listen.bind) for listen in config.listen] == ["0.0.0.0:443"]
    assert {name: (str(node.url), node.weight, node.capacity) for name, node in config.node_map.items()} == {
        "app1": ("http://10.0.0.1:8080", 3, 0),
        "10.0.0.2-8080": ("http://10.0.0.2:8080", 1, 7),
        "10.0.0.9": ("http://10.0.0.9:80", 1, 0),
    }
    assert (config.balance.policy, config.balance.hash.by) == ("hash", "client")
    assert (str(config.limits.body), config.limits.connections) == ("20MiB", 768)
    routes = [(route.name, route.match.path, route.timeout and str(route.timeout)) for route in config.routes]
    assert routes == [("old", "/exact", "10s"), ("old-2", "/api/v1/*", None), ("app", None, None)]


def test_what_nginx_says_and_we_cannot_is_listed(tmp_path: Path) -> None:
    (tmp_path / "mime.types").write_text("types { text/html html; }\n")
    said = lost(imported(tmp_path, "nginx.conf", NGINX))
    assert {text.partition(" {")[0].partition(";")[0] for text in said} == {
        "gzip on",
        "server",
        "listen 443 ssl http2",
        "proxy_set_header X-Secret word",
        "proxy_next_upstream error timeout",
        "location /rewritten/",
        r"location ~ \\.php$",
        "location /files/",
    }


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("haproxy.cfg", "frontend a\n    bind :80 'x\n", "line 2: the quote ' does not end"),
        ("haproxy.cfg", "global\n    daemon\n", "no front end for HTTP"),
        ("haproxy.cfg", "hello\n", "before the first section"),
        ("haproxy.cfg", "frontend a\n bind :80\n default_backend b\n", "there is no backend b"),
        ("nginx.conf", "http { server { listen 80; } }", "no server that leads to other servers"),
        ("nginx.conf", "http { server {", "unexpected end of file"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    ran = run(name, folder=tmp_path)
    assert ran.returncode == 3
    assert why in ran.stderr
    assert ran.stdout == ""


def run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "balancer", "import", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_the_command_writes_a_file_that_check_accepts(tmp_path: Path) -> None:
    (tmp_path / "front.cfg").write_text(dedent(HAPROXY))
    ran = run("front.cfg", "-o", "arv-balance.yml", folder=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "line 23: use_backend c if !is_static\n  not carried over: a route of ours has no `not`" in ran.stderr
    assert ran.stderr.endswith("2 listeners, 4 nodes, 5 routes; 10 lines not carried over\n")
    assert load(tmp_path / "arv-balance.yml", look_at_files=False).is_valid
    assert "#   line 23: use_backend c" in (tmp_path / "arv-balance.yml").read_text()


def test_strict_fails_when_something_was_lost_and_the_report_is_json(tmp_path: Path) -> None:
    (tmp_path / "front.cfg").write_text(dedent(HAPROXY))
    ran = run("front.cfg", "--strict", "--report", "json", folder=tmp_path)
    assert ran.returncode == 1
    report = json.loads(ran.stderr)
    assert (report["schema"], report["valid"], len(report["lost"])) == ("arv-balance/import/v1", True, 10)


def test_what_is_not_valid_yet_is_written_to_be_completed(tmp_path: Path) -> None:
    (tmp_path / "front.cfg").write_text("frontend a\n    bind :80\n    default_backend b\nbackend b\n")
    ran = run("front.cfg", folder=tmp_path)
    assert ran.returncode == 3
    assert "no nodes" in ran.stderr
    assert 'bind: "0.0.0.0:80"' in ran.stdout


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    ran = run("nothing.cfg", folder=tmp_path)
    assert (ran.returncode, ran.stderr) == (3, "error: cannot read nothing.cfg: No such file or directory\n")


def test_what_is_left_of_our_own_rendering_is_told_in_words(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "examples/engines/haproxy.cfg"
    command = [sys.executable, "-P", "-m", "balancer", "import", str(config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0
    assert "a client that has half-closed is given timeouts.body_idle" in ran.stderr
    assert "it answers `Expect: 100-continue` itself" in ran.stderr
    assert ran.stderr.endswith("2 lines not carried over\n")
