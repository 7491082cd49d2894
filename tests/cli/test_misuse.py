"""What is mistyped or cannot be: each command says what, why and what to try, with the exit code of its kind."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from balancer.cli import build
from tests.cli.test_commands import shell


async def test_a_name_that_is_mistyped_is_answered_with_the_nearest_one() -> None:
    async with shell("api1", "api2", designated={"dns": {"order": ["api1"]}}) as (run, _):
        await run("nodes", "weight", "api2", "50")
        for code, meant, arguments in (
            (1, "did you mean 'api1'?", "nodes drain ap1"),
            (1, "did you mean 'api1'?", "nodes undrain ap1"),
            (1, "did you mean 'api1'?", "nodes weight ap1 5"),
            (1, "did you mean 'api1'?", "nodes remove ap1 --yes"),
            (1, "did you mean 'api2'?", "nodes forget ap2"),
            (1, "arv-balance nodes list", "nodes drain other"),
            (1, "did you mean 'dns'?", "designate dsn"),
            (1, "did you mean 'dns'?", "designate dsn api1"),
            (1, "did you mean 'api1'?", "designate dns ap1"),
            (6, "not in designated.dns.order", "designate dns api2"),
            (0, "did you mean 'api2'?", "events --node ap2"),
            (0, "did you mean 'node-weight'?", "events --kind node-wieght"),
        ):
            ran = await run(*arguments.split())
            assert (ran.code, ran.out) == (code, ""), (arguments, ran)
            assert meant in ran.err, (arguments, ran)


async def test_forgetting_what_nobody_changed_says_so() -> None:
    async with shell("api1") as (run, _):
        ran = await run("nodes", "forget", "api1")
        assert (ran.code, ran.out) == (0, "api1  nothing was changed; it is healthy\n")


async def test_a_span_that_is_none_is_refused_before_anything_is_done() -> None:
    async with shell("api1", "api2") as (run, _):
        for option, arguments in (
            ("--timeout", "nodes drain api1 --timeout=-3s"),
            ("--for", "nodes drain api1 --for 5"),
            ("--timeout", "nodes undrain api1 --timeout 1x"),
            ("--timeout", "nodes remove api1 --yes --timeout x"),
            ("--timeout", "nodes add http://127.0.0.1:9 --timeout soon"),
            ("--for", "nodes weight api1 5 --for 1"),
            ("--for", "pause --yes --for banana"),
            ("--timeout", "pause --yes --timeout 5"),
            ("--every", "top --once --every x"),
            ("'x'", "status --timeout x"),  # which starts without the parser of options
            ("--skew", "doctor --skew 5"),
            ("--queue-timeout", "whatif --nodes 2 --log - --queue-timeout z"),
            ("--timeout", "dns apply --yes --timeout foo"),
            ("--timeout", "dns hook --hostname a --timeout foo"),
        ):
            ran = await run(*arguments.split(), COLUMNS="200")
            assert (ran.code, ran.out) == (2, ""), (arguments, ran)
            assert option in ran.err, (arguments, ran)
            assert "write 500ms, 30s, 5m, 2h or 1h30m" in ran.err, (arguments, ran)
        document = await run.control.get("/v1/status")
        assert document["intents"] == []
        assert sorted((await run.control.states()).items()) == [("api1", "healthy"), ("api2", "healthy")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("render haprox", "'haprox' is not one of haproxy, nginx, envoy, traefik, caddy; did you mean 'haproxy'?"),
        ("check --format xml", "'xml' is not one of text, json, github"),
        ("nodes weight api1 heavy", "'heavy' is not a whole number"),
        ("nodes weight api1 2000", "2000 is too large: at most 1000"),
        ("resume --rate fast", "'fast' is not a number"),
        ("resume --rate 0", "0 is too small: at least 0.1"),
        ("events --limit -1", "-1 is too small: at least 0"),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_told_in_our_words(arguments: str, words: str) -> None:
    done = CliRunner(env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).invoke(build(), arguments.split())
    assert (done.exit_code, done.stdout) == (2, "")
    assert f": {words} " in done.stderr


async def test_what_the_admin_api_cannot_take_is_a_matter_of_usage() -> None:
    async with shell("api1") as (run, _):
        for said, arguments in (
            ("'foo' does not begin with /", ["explain", "GET", "foo"]),
            ("'broken' is not 'NAME: VALUE'", ["explain", "GET", "/", "-H", "broken"]),
            ("'nowhere' is no address", ["explain", "GET", "/", "--from", "nowhere"]),
            ("'ftp://x' is not a node's URL", ["nodes", "add", "ftp://x"]),
            ("for has to be more than 0", ["nodes", "drain", "api1", "--for", "0s", "--dry-run"]),
        ):
            ran = await run(*arguments, COLUMNS="200")
            assert (ran.code, ran.out, said in ran.err) == (2, "", True), (arguments, ran)
        assert (await run("explain", "GET", "/", "--from", "unix:")).code == 0


async def test_a_file_that_is_no_nginx_conf_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "nginx.conf"
    await asyncio.to_thread(file.write_text, '- {url: "http://x"}\nlisten: []\n')
    async with shell("api1") as (run, _):
        ran = await run("import", str(file))
    assert (ran.code, ran.out) == (3, "")
    assert "it is no nginx.conf" in ran.err


@pytest.mark.parametrize("arguments", [("jobs",), ("jobs", "run", "trash"), ("migrate",), ()])
def test_an_api_node_without_its_database_says_so_and_ends_with_4(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    file = tmp_path / "node.yml"
    file.write_text("cluster: xdemo\nsystem_root_token: abc\ndatabase_url: postgresql://127.0.0.1:1/none\n")
    command = [sys.executable, "-P", "-m", "balancer.cli", "api", "--config", str(file), *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, "Traceback" in ran.stderr) == (4, False), ran.stderr
    assert "the database cannot be reached" in ran.stderr
