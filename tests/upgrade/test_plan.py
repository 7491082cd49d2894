"""Plans: faults with their places, commands without a shell, the examples."""

import textwrap
from pathlib import Path

import pytest

from balancer.config.loader import parse
from balancer.config.upgradeplan import Plan, PlanError, check, from_command, load
from balancer.control.upgrade.machine import Do
from balancer.control.upgrade.plan import Target, compiled
from balancer.errors import ConfigError

TARGETS = [Target("api1", "10.0.0.11", "http://10.0.0.11:8003"), Target("api2", "10.0.0.12", "http://10.0.0.12:8003")]
EXAMPLES = sorted((Path(__file__).parents[2] / "examples/upgrade").glob("*.yml"))


def plan_of(text: str) -> Plan:
    return check(parse(textwrap.dedent(text), "plan.yml", {}))


def report_of(text: str) -> str:
    with pytest.raises(PlanError) as caught:
        plan_of(text)
    return caught.value.report


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_the_examples_are_plans_for_their_nodes(path: Path) -> None:
    plan = load(path)
    found = compiled(plan, TARGETS)
    assert {step.node for step in found.steps if step.node} == {"api1", "api2"}
    assert sum(step.do is Do.MIGRATE for step in found.steps) <= 1
    assert not [part for order in found.orders.values() for part in order.arguments if "{node}" in part]


def test_there_is_an_example_for_each_way_to_run_nodes() -> None:
    assert {path.stem for path in EXAMPLES} >= {"arvados-systemd", "api-nodes", "containers", "rolling-restart"}


def test_commands_run_without_a_shell_unless_it_is_asked_for() -> None:
    plan = plan_of("""
        mode: rolling
        stop: ssh {host} 'systemctl stop  api'
        start: [ssh, "{host}", "systemctl start api@{node}"]
        upgrade: {run: "echo {url} | tee {{log}}", shell: true, timeout: 9s}
    """)
    orders = compiled(plan, TARGETS).orders
    assert orders[Do.STOP, "api1"].arguments == ("ssh", "10.0.0.11", "systemctl stop  api")
    assert orders[Do.START, "api2"].arguments == ("ssh", "10.0.0.12", "systemctl start api@api2")
    upgrade = orders[Do.UPGRADE, "api1"]
    assert upgrade.arguments == ("/bin/sh", "-c", "echo http://10.0.0.11:8003 | tee {log}")
    assert (upgrade.timeout_s, orders[Do.STOP, "api1"].timeout_s) == (9.0, 300.0)


def test_placeholders_are_quoted_for_a_shell() -> None:
    plan = plan_of("{mode: rolling, upgrade: {run: 'echo {host}', shell: true}}")
    order = compiled(plan, [Target("api1", "$(reboot)", "unix:/x")]).orders[Do.UPGRADE, "api1"]
    assert order.arguments[2] == "echo '$(reboot)'"


def test_the_migration_is_for_the_first_node_of_the_plan_alone() -> None:
    plan = plan_of("{mode: stop-all, nodes: [api2, api1], upgrade: up, migrate: {run: m, database: {file: /dsn}}}")
    found = compiled(plan, TARGETS)
    assert [step.node for step in found.steps if step.do is Do.MIGRATE] == ["api2"]
    assert found.orders[Do.MIGRATE, "api2"].database == {"file": "/dsn"}


def test_another_host_for_commands_than_the_url_has() -> None:
    plan = plan_of("{mode: rolling, upgrade: 'ssh {host}', hosts: {api2: admin-net-2}}")
    assert compiled(plan, TARGETS).orders[Do.UPGRADE, "api2"].arguments == ("ssh", "admin-net-2")


def test_a_plan_for_a_node_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="names api9, and nodes are api1, api2"):
        compiled(plan_of("{mode: rolling, upgrade: x, nodes: [api9]}"), TARGETS)


def test_the_digest_tells_plans_apart() -> None:
    digests = {
        compiled(plan_of(f"{{mode: {mode}, upgrade: {command}}}"), TARGETS).digest
        for mode in ("rolling", "stop-all")
        for command in ("x", "y")
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("mode: rollin\nupgrade: x\n", "plan.yml:1:7:", "did you mean 'rolling'?"),
        ("upgrade: x\n", "plan.yml:1:1:", "missing key 'mode'"),
        ("mode: rolling\nupgade: x\nupgrade: y\n", "plan.yml:2:1:", "did you mean 'upgrade'?"),
        ("mode: rolling\nupgrade: ssh {hots}\n", "plan.yml:2:10:", "did you mean 'host'?"),
        ("mode: rolling\nupgrade: ssh {node.__class__}\n", "plan.yml:2:10:", "there is no {node.__class__}"),
        ("mode: rolling\nupgrade: ssh {\n", "plan.yml:2:10:", "the braces do not match"),
        ("mode: rolling\nupgrade: echo 'x\n", "plan.yml:2:10:", "close the quotes"),
        ("mode: rolling\nupgrade: a && b\n", "plan.yml:2:10:", "means something to a shell only"),
        ("mode: rolling\nupgrade: {run: 5}\n", "plan.yml:2:16:", "the number 5 is no command"),
        ("mode: rolling\nupgrade: {run: x, timeout: 5}\n", "plan.yml:2:28:", "5 has no unit"),
        ("mode: rolling\nstop: x\n", "plan.yml:2:1:", "nodes are stopped and never started"),
        ("mode: rolling\nupgrade: x\nhold: 5m\n", "plan.yml:3:", "a rolling upgrade pauses nothing"),
        ("mode: rolling\nupgrade: x\nnodes: [a, a]\n", "plan.yml:3:", "a stands there twice"),
        ("mode: rolling\n", "plan.yml:1:1:", "a plan without a command changes nothing"),
        ("mode: rolling\nupgrade:\n", "plan.yml:2:1:", "is empty"),
        ("mode: rolling\nmigrate: {run: x, database: postgres://u:p@h/d}\n", "plan.yml:2:", "a secret cannot stand"),
        ("- a\n", "plan.yml:1:1:", "the file has to be a mapping"),
        ("mode: [\n", "plan.yml:", "not valid YAML"),
    ],
)
def test_faults_are_told_with_place_and_remedy(text: str, place: str, message: str) -> None:
    report = report_of(text)
    assert report.startswith(place), report
    assert message in report, report


def test_all_faults_are_told_at_once() -> None:
    report = report_of("mode: rolling\nstop: ssh {hots}\nstart: {run: x, timeot: 5s}\nready: soon\n")
    assert [line.split(":")[1] for line in report.splitlines() if line.startswith("plan.yml:")] == ["3", "4"]
    assert "{hots}" in report_of("mode: rolling\nstop: ssh {hots}\nstart: x\n")  # looked at once the schema fits


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="has 1 error") as caught:
        load(tmp_path / "missing.yml")
    assert "cannot read the file: No such file" in caught.value.report


def test_exec_is_a_rolling_plan_with_one_shell_command() -> None:
    plan = from_command("ssh {host} sudo systemctl restart arvados-controller && true")
    orders = compiled(plan, TARGETS).orders
    assert orders[Do.UPGRADE, "api1"].arguments[:2] == ("/bin/sh", "-c")
    assert plan.mode == "rolling"
    with pytest.raises(PlanError) as caught:
        from_command("ssh {hots}")
    assert "did you mean 'host'?" in caught.value.report
