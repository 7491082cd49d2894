"""The doctor in front of our own API nodes: nothing is wrong with them, and a job that failed is found."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from apiserver.node import prepare
from tests.doctor.harness import doctor
from tests.support.api import MANAGEMENT, STEPS, settings, start_config
from tests.support.apisite import ApiSite
from tests.support.postgres import TestServer, postgres_server

__all__ = ["postgres_server"]
pytestmark = [pytest.mark.e2e, pytest.mark.pg]


class HealthyApiSite(ApiSite):
    """Configured as the documentation says."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        token = self.folder / "management-token"
        token.touch(0o600)
        token.write_text(MANAGEMENT)
        nodes = {name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 64} for name, node in self.nodes.items()}
        self.extra |= {
            "nodes": nodes,
            "health": {"token": {"file": str(token)}},
            "internal_networks": ["127.0.0.0/8"],
            "limits": {"connections": 200, "tunnels": 100},
            "timeouts": {"upstream_idle": "250ms"},
        }
        self.api_config = self.folder / "api-for-doctor.yml"
        self.api_config.write_text(json.dumps({**start_config(database_url), "external_url": self.url + "/"}))


@pytest.fixture(scope="module")
def site(postgres_server: TestServer) -> Iterator[HealthyApiSite]:
    dsn = asyncio.run(postgres_server.make_template("examined"))
    asyncio.run(prepare(settings(dsn), STEPS))
    made = HealthyApiSite(dsn)
    try:
        made.start()
        yield made
    finally:
        made.close()


def examined(site: HealthyApiSite, config: Path | None = None) -> tuple[list[tuple[str, str]], dict[str, str]]:
    seen = doctor(config or site.config_path, "--api-config", str(site.api_config))
    return [(finding["rule"], finding["subject"]) for finding in seen.findings], seen.unseen


def test_api_nodes_have_no_finding_and_everything_was_looked_at(site: HealthyApiSite) -> None:
    assert examined(site) == ([], {})


def test_an_api_node_with_another_secret_is_found(site: HealthyApiSite) -> None:
    other = site.processes.start(collections={"blob_signing_key": "another"})
    try:
        document = site.config()
        document["nodes"]["api4"] = {"url": other.base, "capacity": 64}
        path = site.folder / "with-another.yml"
        path.write_text(json.dumps(document))
        found, _ = examined(site, path)
    finally:
        other.kill()
    assert found == [("config-not-running", str(path)), ("config-differs", "api4")]


def test_a_job_that_failed_is_found(site: HealthyApiSite) -> None:
    async def set_error(error: str | None) -> None:
        connection = await asyncpg.connect(site.database_url)
        try:
            await connection.execute(
                "UPDATE periodic_job SET last_error = $1, lease_until = NULL, "
                "next_at = now() + interval '1 day' WHERE name = 'permissions'", error,
            )  # fmt: skip
        finally:
            await connection.close()

    asyncio.run(set_error("deadlock"))
    try:
        assert examined(site) == ([("job-overdue", "permissions")], {})
    finally:
        asyncio.run(set_error(None))


def test_jobs_are_named_as_not_looked_at_without_their_database(site: HealthyApiSite) -> None:
    assert "give --api-config FILE" in doctor(site.config_path).unseen["periodic jobs"]
