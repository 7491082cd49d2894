"""examples/engines: what `make docs` writes and `make check` compares, read by each engine's own checker."""

from pathlib import Path

import pytest
import trustme

from balancer.render import programs
from balancer.render.engine import ENGINES
from balancer.render.output import SEPARATOR
from tests.engines import fronts
from tests.engines.checking import accepts
from tests.support.ports import free_port
from tests.support.programs import lacking

EXAMPLES = Path(__file__).parents[2] / "examples" / "engines"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate and its key in one file."""
    path = tmp_path_factory.mktemp("certificate") / "api.pem"
    made = trustme.CA().issue_cert("api.example.org")
    path.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems) + made.private_key_pem.bytes())
    return str(path)


def example(engine: str, certificate: str, statistics_port: int, folder: Path) -> str:
    """The file as it stands, with paths and ports of this machine."""
    name = Path(ENGINES[engine].file_name)
    text = (EXAMPLES / name).read_text()
    if engine == "traefik":
        text += SEPARATOR.lstrip("\n") + (EXAMPLES / "traefik.dynamic.yml").read_text()
        text = text.replace("/etc/traefik/dynamic.yml", str(folder / "traefik.dynamic.yml"))
        text = text.replace("127.0.0.1:8404", f"127.0.0.1:{statistics_port}")
    for port in ("0.0.0.0:443", "127.0.0.1:8080"):
        text = text.replace(port, f"127.0.0.1:{free_port()}")
    return text.replace("/etc/ssl/api.pem", certificate).replace("/etc/ssl/api.key", certificate)


@pytest.mark.parametrize("run", fronts.RUNS)
def test_an_engine_takes_its_example_without_a_warning(run: str, certificate: str, tmp_path: Path) -> None:
    program = fronts.program(run) or lacking(fronts.missing(run))
    engine, port = fronts.engine_of(run).name, free_port()
    text = example(engine, certificate, port, tmp_path)
    assert accepts(engine, text, tmp_path, program, port) == ""


def test_no_secret_stands_in_an_example() -> None:
    """The token of health checks is named by its variable only."""
    for path in EXAMPLES.iterdir():
        for line in path.read_text().splitlines():
            assert "Bearer" not in line or "ARV_BALANCE_HEALTH_TOKEN" in line, (path.name, line)


def test_a_warning_is_not_accepted(certificate: str, tmp_path: Path) -> None:
    program = fronts.program("haproxy") or lacking(fronts.missing("haproxy"))
    text = example("haproxy", certificate, 0, tmp_path).replace("    timeout client ", "    # timeout client ")
    assert "WARNING" in accepts("haproxy", text, tmp_path, program)


@pytest.mark.parametrize("name", ["haproxy", "nginx", "envoy", "caddy"])
def test_a_checker_refuses_what_is_broken(name: str, certificate: str, tmp_path: Path) -> None:
    program = programs.find(ENGINES[name]) or lacking(programs.advice(ENGINES[name]))
    text = example(name, certificate, 0, tmp_path) + "\nnonsense { here\n"
    assert accepts(name, text, tmp_path, program) != ""
