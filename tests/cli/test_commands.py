"""Commands as an operator types them, against a real control process."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from balancer import scoreboard as sb
from balancer.cli.output import age
from balancer.cli.reference import markdown
from balancer.control.admin import endpoints
from balancer.net.nodes import observe_marked
from balancer.observe import metrics
from tests.control.harness import FakeNode, Rig, nodes, rig, until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A shell in which ARV_BALANCE_ADMIN is set."""

    control: Rig

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ARV_", "FORCE_", "NO_COLOR"))
        }
        return {**kept, "ARV_BALANCE_ADMIN": f"unix:{self.control.socket}", **more}

    async def start(self, *arguments: str, **more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "balancer.cli",
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(**more),
        )

    async def __call__(self, *arguments: str, **more: str) -> Ran:
        process = await self.start(*arguments, **more)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


async def until_designated(run: Shell) -> None:
    """Until the workers have been told: the decision itself is there earlier, and the next generation to come."""

    def is_told() -> bool:
        snapshot = run.control.workers[0].snapshot
        return snapshot is not None and all(item.node for item in snapshot.designations)

    await until(is_told)


@asynccontextmanager
async def shell(*names: str, **config: Any) -> AsyncIterator[tuple[Shell, list[FakeNode]]]:
    async with nodes(*names) as fakes, rig(fakes, **config) as control:
        await control.until_states(**dict.fromkeys(names, "healthy"))
        yield Shell(control), fakes


async def test_status_is_plain_when_piped_and_versioned_as_json() -> None:
    async with shell("api1", "api2") as (run, fakes):
        shown = await run("status")
        assert (shown.code, shown.err) == (0, "")
        assert "\x1b" not in shown.out
        first, _, header, *rows = shown.out.splitlines()
        assert first.startswith("xtest  ● healthy   2/2 serving")
        assert header.split()[:3] == ["NODE", "STATE", "REQ/S"]
        assert [row.split()[:3] for row in rows] == [["api1", "●", "healthy"], ["api2", "●", "healthy"]]
        document = json.loads((await run("status", "--json")).out)
        assert document["schema"] == "arv-balance/status/v1"
        assert (await run("status", "-o", "name")).out.split() == ["api1", "api2"]
        assert "url: " in (await run("nodes", "list", "-o", "yaml")).out
        assert fakes[0].url in (await run("nodes", "list", "-o", "wide")).out
        colored = await run("status", FORCE_COLOR="1")
        assert "\x1b[32m" in colored.out
        assert "\x1b" not in (await run("status", FORCE_COLOR="1", NO_COLOR="1")).out


async def test_a_route_that_fails_or_is_slow_has_a_line_and_a_place_on_the_dashboard() -> None:
    routes = [{"name": name, "match": {"path": f"/{name}"}} for name in ("quick", "uploads")]
    async with shell("api1", routes=routes) as (run, _):
        board = run.control.board
        for slot, took_ns in ((0, 20_000_000), (1, 2_300_000_000)):
            second = time.monotonic_ns() // 10**9
            observe_marked(board.cells, sb.row(0) + sb.W_LISTENERS + sb.L_DURATION, [took_ns], second)
            observe_marked(board.cells, sb.route_cell(0, slot) + sb.R_DURATION, [took_ns], second)
        board.cells[sb.route_cell(0, 1) + sb.R_FAILED] = 4

        async def counted() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await run.control.get("/v1/status"))["routes"]
            return found if found[1]["rates"]["failed"] == 4 else []

        quick, uploads, rest = await until(counted)
        assert [item["name"] for item in (quick, uploads, rest)] == ["quick", "uploads", ""]
        assert uploads["rates"]["slowest_s"] == 2.3
        assert uploads["rates"]["p99_s"] <= 2.3
        lines = (await run("status")).out.splitlines()
        (line,) = [line for line in lines if line.startswith(("route", "no named"))]
        assert re.fullmatch(r"route uploads: \d+ req/s, p99 2.3s, 4 failed in the last minute", line)
        page = await run.control.page("/ui/")
        assert page.index("uploads") < page.index("quick")


async def test_status_tells_scripts_how_it_is() -> None:
    async with shell("api1", "api2") as (run, fakes):
        assert [(await run("status", *flags)).code for flags in (["-q"], ["--exit-code"])] == [0, 0]
        await fakes[1].stop()
        await run.control.until_states(api2="unhealthy")
        assert [(await run("status", *flags)).code for flags in (["-q"], ["--exit-code"], [])] == [0, 1, 0]
        await fakes[0].stop()
        await run.control.until_states(api1="unhealthy")
        assert [(await run("status", *flags)).code for flags in (["-q"], ["--exit-code"], [])] == [1, 1, 0]
        await run.control.kill()
        gone = await run("status", "-q", "--timeout", "1s")
        assert gone.code == 4
        assert gone.err.startswith("error: the balancer does not answer at unix:")
        assert "try: " in gone.err


async def test_drain_returns_when_it_is_true_and_says_how_to_undo_it() -> None:
    async with shell("api1", "api2") as (run, _):
        run.control.claim("api2", 3)
        process = await run.start("nodes", "drain", "api2", "--reason", "disk swap")
        assert process.stderr is not None
        told = (await process.stderr.readline()).decode()
        run.control.claim("api2", 0)
        out, err = (data.decode() for data in await process.communicate())
        assert process.returncode == 0
        assert out.startswith("api2  drained in ")
        assert "in flight 3 -> 3" in told
        assert "Undo: arv-balance nodes undrain api2" in err
        listed = (await run("nodes", "list")).out
        assert "◌ drained" in listed
        assert "disk swap (" in listed
        undrained = await run("nodes", "undrain", "api2")
        assert undrained.code == 0
        assert "2 nodes serve." in undrained.out


async def test_a_drain_that_is_not_in_time_names_what_remains() -> None:
    async with shell("api1", "api2") as (run, _):
        run.control.claim("api2", 1)
        run.control.workers[0].exchanges = [
            {"request_id": "req-slow", "method": "GET", "path": "/slow", "node": "api2", "age_s": 41.0, "state": "node"}
        ]
        late = await run("nodes", "drain", "api2", "--timeout", "300ms")
        assert late.code == 5
        assert "api2 is still draining" in late.err
        assert "GET /slow  41.0 s  req-slow" in late.err
        assert (await run.control.states())["api2"] == "draining"


async def test_an_interrupted_drain_says_in_which_state_it_leaves_the_node() -> None:
    async with shell("api1", "api2") as (run, _):
        run.control.claim("api2", 1)
        process = await run.start("nodes", "drain", "api2")
        await run.control.until_states(api2="draining")
        assert process.stderr is not None
        await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert b"stays draining" in err


async def test_guards_and_questions_end_with_6_and_the_flag_to_add() -> None:
    async with shell("api1", "api2") as (run, _):
        assert (await run("nodes", "drain", "api1")).code == 0
        refused = await run("nodes", "drain", "api2")
        assert (refused.code, "min_serving" in refused.err) == (6, True)
        asked = await run("nodes", "remove", "api1")
        assert (asked.code, "--yes" in asked.err) == (6, True)
        assert (await run("pause")).code == 6


async def test_dry_runs_change_nothing() -> None:
    async with shell("api1", "api2", designated={"dns": {}}) as (run, _):
        await until_designated(run)
        before = (await run.control.get("/v1/status"))["generation"]
        for command in (
            ["nodes", "drain", "api1"],
            ["nodes", "remove", "api1"],
            ["nodes", "weight", "api1", "7"],
            ["nodes", "add", "http://127.0.0.1:9"],
            ["reload"],
            ["pause"],
            ["designate", "dns", "api2"],
        ):
            ran = await run(*command, "--dry-run")
            assert (ran.code, "would" in ran.out + ran.err) == (0, True), (command, ran)
        after = await run.control.get("/v1/status")
        assert (after["generation"], after["intents"]) == (before, [])
        assert (await run("designate", "dns", "other", "--dry-run")).code == 1  # refused as without --dry-run


def test_an_age_is_told_in_whole_seconds() -> None:
    now = datetime.now(UTC)
    ages = {seconds: age((now - timedelta(seconds=seconds)).isoformat(), now) for seconds in (-1.0, 0.653, 7.4, 130.2)}
    assert ages == {-1.0: "0s", 0.653: "0s", 7.4: "7s", 130.2: "2m10s"}


async def test_without_a_designated_node_designate_says_so() -> None:
    async with shell("api1") as (run, _):
        shown = await run("designate")
        assert (shown.code, shown.out) == (0, "the configuration has no designated nodes\n")
        refused = await run("designate", "dns", "api1")
        assert (refused.code, "try:" in refused.err) == (1, False)


async def test_names_are_completed_from_the_running_balancer() -> None:
    async with shell("api1", "api2", "other", designated={"dns": {}}) as (run, _):
        for typed, names in (
            ("nodes drain ap", ["api1", "api2"]),
            ("designate d", ["dns"]),
            ("designate dns o", ["other"]),
            ("events --node api", ["api1", "api2"]),
        ):
            words = {"COMP_WORDS": f"arv-balance {typed}", "COMP_CWORD": str(len(typed.split()))}
            process = await asyncio.create_subprocess_exec(
                Path(sys.executable).with_name("arv-balance"),  # whose name the shell's script has
                stdout=subprocess.PIPE,
                env=run.environment(_ARV_BALANCE_COMPLETE="complete_bash", **words),
            )
            out, _ = await process.communicate()
            assert out.decode().split() == names, typed


async def test_a_dry_run_of_resume_says_what_would_go_on_and_leaves_the_pause() -> None:
    async with shell("api1") as (run, _):
        assert (await run("resume", "--dry-run")).out == "traffic was not paused\n"
        await run("pause", "--yes")
        ran = await run("resume", "--dry-run", "--rate", "7")
        assert (ran.code, ran.out) == (0, "traffic would go on; 0 requests wait, 7 a second would go on\n")
        assert (await run.control.get("/v1/pause"))["paused"]


async def test_an_abort_without_an_upgrade_says_so_before_it_asks() -> None:
    async with shell("api1") as (run, _):
        for arguments in (["abort"], ["abort", "--dry-run"], ["resume"], ["resume", "--dry-run"]):
            ran = await run("upgrade", *arguments)
            assert (ran.code, ran.out, "no upgrade is open" in ran.err) == (1, "", True), (arguments, ran)


async def test_nodes_come_and_go() -> None:
    async with nodes("api3") as (extra,), shell("api1", "api2") as (run, _):
        added = await run("nodes", "add", extra.url, "--name", "api3", "--weight", "50")
        assert (added.code, added.out.startswith("api3  added, healthy after")) == (0, True), added
        assert (await run("nodes", "weight", "api3", "10")).out == "api3  weight is 10 (was 50)\n"
        removed = await run("nodes", "remove", "api3", "--yes")
        assert (removed.code, removed.out.startswith("api3  removed in")) == (0, True), removed
        assert (await run("nodes", "list", "-o", "name")).out.split() == ["api1", "api2"]
        typo = await run("nodes", "drain", "apy1")
        assert (typo.code, "did you mean 'api1'?" in typo.err) == (1, True)


async def test_events_reload_ledger_explain_pause_and_designate_answer() -> None:
    async with shell("api1", "api2", designated={"dns": {}}) as (run, _):
        run.control.config["balance"] = {"policy": "round_robin"}
        run.control.write_config()
        assert "policy" in (await run("reload")).out
        run.control.config["balance"] = {"policy": "leastcon"}
        run.control.write_config()
        bad, file = await run("reload"), run.control.config_path
        assert bad.code == 3
        assert re.search(rf"^{file}:\d+:\d+: error: balance.policy: 'leastcon' is not one of", bad.err, re.MULTILINE)
        for out in (bad.err, (await run("status")).out):
            assert out.count("has 1 error") == 1
            assert f"arv-balance check {file}" in out
        assert (await run("ledger")).out.splitlines()[-1].split()[:2] == ["accepted", "0"]
        assert "would be chosen" in (await run("explain", "GET", "/arvados/v1/collections")).out
        paused = await run("pause", "--yes", "--reason", "failover")
        assert (paused.code, paused.out.startswith("paused: nothing is in flight")) == (0, True), paused
        assert "‖ paused" in (await run("status")).out
        assert (await run("resume")).out.startswith("traffic goes on")
        moved = await run("designate", "dns", "api2", "--reason", "test")
        assert (moved.code, "api2" in moved.out) == (0, True)
        told = (await run("events")).out
        for text in ("configuration", "traffic is paused", "failover", "dns is api2"):
            assert text in told


async def test_followed_events_arrive_as_they_happen() -> None:
    async with shell("api1", "api2") as (run, _):
        process = await run.start("events", "-f", "--json", "-n", "0")
        assert process.stdout is not None
        await asyncio.sleep(0)
        ready = asyncio.Event()

        async def read() -> dict[str, object]:
            ready.set()
            assert process.stdout is not None
            found: dict[str, object] = json.loads(await process.stdout.readline())
            return found

        reading = asyncio.ensure_future(read())
        await ready.wait()
        weight = 1

        async def happened() -> bool:
            nonlocal weight
            weight += 1
            await run.control.post("/v1/nodes/api1/weight", weight=weight)
            await asyncio.sleep(0.1)
            return reading.done()

        await until(happened)
        assert (await reading)["kind"] == "node-weight"
        process.terminate()
        await process.communicate()


HEAVY = ("aiohttp", "asyncpg", "dns", "prometheus_client", "pydantic", "rich", "typer", "yaml", "asyncio")


@pytest.mark.parametrize("arguments", [["status"], ["status", "-q"], ["nodes", "list", "--json"]])
def test_what_watchdogs_type_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['arv-balance', *{arguments!r}, '--admin', 'unix:/nowhere']\n"
        "try:\n    from balancer.cli import main; main()\n"
        "except SystemExit as exc:\n    assert exc.code == 4, exc.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "make"), [("cli", markdown), ("metrics", metrics.reference), ("admin-api", endpoints.reference)]
)
def test_the_reference_is_current(name: str, make: Callable[[], str]) -> None:
    assert (ROOT / "docs" / f"{name}.md").read_text() == make(), "write it again: make docs"


@pytest.mark.parametrize(
    ("where", "code", "words"),
    [
        ("unix:/nowhere/admin.sock", 4, "there is no such socket"),
        ("127.0.0.1:1", 4, "an address begins with http://"),
        ("http://127.0.0.1:many", 2, "http://127.0.0.1:many is no address"),
    ],
)
async def test_an_admin_address_that_is_wrong_is_told_for_what_it_is(where: str, code: int, words: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "balancer.cli", "status"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ARV_BALANCE_ADMIN": where},
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (code, b"")
    assert words in err.decode()
    assert "Traceback" not in err.decode()


async def test_a_token_in_a_file_opens_the_address_and_its_role_is_told() -> None:
    async with nodes("api1", "api2") as fakes, rig(fakes, start=False) as control:
        port, token = free_port(), control.folder / "eye"
        token.write_text("viewer-secret\n")
        token.chmod(0o600)
        tokens = [{"name": "eye", "role": "viewer", "file": str(token)}]
        control.config["admin"] |= {"listen": f"127.0.0.1:{port}", "tokens": tokens}
        control.write_config()
        await control.start()
        await control.until_states(api1="healthy", api2="healthy")
        run, where = Shell(control), ("--admin", f"http://127.0.0.1:{port}", "--admin-token-file", str(token))
        assert (await run("status", *where)).code == 0
        refused = await run("nodes", "drain", "api1", *where)
        assert refused.code == 1
        assert "it needs the role operator" in refused.err
        unknown = await run("status", "--admin", f"http://127.0.0.1:{port}")
        assert (unknown.code, "a token is needed" in unknown.err) == (1, True)
        assert "viewer-secret" not in refused.err + unknown.err
