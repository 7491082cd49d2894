"""Real API nodes on one database behind the real balancer, over TLS by a certificate of a test CA."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from tests.support.api import MANAGEMENT, ROOT, Processes, start_config
from tests.support.postgres import TestServer
from tests.support.site import Site


class ApiSite(Site):
    """Three processes of `arv-balance api` and `arv-balance serve` in front of them."""

    def __init__(self, database_url: str) -> None:
        super().__init__(preset="arvados", health={"token": {"env": "API_HEALTH_TOKEN"}}, park={"max_per_client": 0})
        self.database_url = database_url
        self.environment = {"API_HEALTH_TOKEN": MANAGEMENT}
        config = {**start_config(database_url), "external_url": self.url + "/", "database_pool": 4}
        self.processes = Processes(self.folder, config)
        self.extra["listen"] = [{"bind": f"127.0.0.1:{self.port}", "tls": self._certificate()}]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate that clients have to trust."""
        return self.folder / "ca.pem"

    def client_environment(self, token: str = ROOT) -> dict[str, str]:
        """The variables by which the official client finds the site, and trusts it."""
        return {
            "ARVADOS_API_HOST": f"127.0.0.1:{self.port}",
            "ARVADOS_API_TOKEN": token,
            "SSL_CERT_FILE": str(self.ca),
        }

    def start(self) -> None:
        for node in self.nodes.values():
            self.processes.launch(listen=[f"127.0.0.1:{node.port}"])
        self.processes.await_ready()
        self.write()
        self.serve()
        self.until_healthy(len(self.nodes))

    def close(self) -> None:
        self.processes.end()
        super().close()

    def _certificate(self) -> dict[str, str]:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        made = authority.issue_cert("127.0.0.1", "localhost")
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(made.private_key_pem.bytes())
        return {"cert": str(cert), "key": str(key)}


Made = TypeVar("Made", bound=ApiSite)


@contextmanager
def started(make: Callable[[str], Made], server: TestServer, template: str) -> Iterator[Made]:
    """Run a site on a database of its own."""
    name = asyncio.run(server.create(template))
    site = make(server.dsn(name))
    try:
        site.start()
        yield site
    finally:
        site.close()
        asyncio.run(server.drop(name))


@pytest.fixture
def env(site: ApiSite, tmp_path: Path) -> dict[str, str]:
    """The variables by which the official client finds the site of the test module, and a store of its own."""
    (tmp_path / "keep").mkdir()
    return {**os.environ, **site.client_environment(), "KEEP_LOCAL_STORE": str(tmp_path / "keep")}
