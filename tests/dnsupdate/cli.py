"""`arv-balance dns` as a process: a configuration, a database, a BIND."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from dnsupdate.enqueue import enqueue
from tests.dnsupdate.builders import host
from tests.dnsupdate.servers import Target, real
from tests.support.nameservers import write_key

CONFIG = """\
cluster: xarv1
dns:
  database_file: {folder}/dsn
  domain: cluster.example
  spool: {{dir: {folder}/spool}}
  targets:
    main: {{servers: [127.0.0.1], port: {port}, key_file: {key}, poll: 50ms, retry: {{first: 50ms, most: 200ms}}}}
  zones:
    - {{name: cluster.example, target: main}}
    - {{name: 2.0.192.in-addr.arpa, target: main, networks: [192.0.2.0/24]}}
  templates:
    compute:
      records:
        - {{name: "{{{{ fqdn }}}}.", each: ipv4, type: A, data: "{{{{ item }}}}"}}
        - {{name: "{{{{ ptr(item) }}}}", each: ipv4, type: PTR, data: "{{{{ fqdn }}}}."}}
"""


@dataclass
class Cli:
    folder: Path
    config: Path
    server: Target
    db: "asyncpg.Connection[asyncpg.Record]"

    def __call__(self, *words: str, expect: int = 0) -> str:
        """Run a command; return what it printed on both streams."""
        command = [sys.executable, "-P", "-m", "balancer.cli", "dns", *words, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "MDEyMzQ1Njc4OWFi" not in done.stdout + done.stderr  # the key's secret
        return done.stdout + done.stderr

    async def ping(self, name: str, ip: str) -> None:
        async with self.db.transaction():
            await enqueue(self.db, host(name, ip))


@pytest.fixture(scope="module")
def primary() -> Iterator[Target]:
    with real("bind") as target:
        yield target


@pytest.fixture
async def cli(dsn: str, tmp_path: Path, primary: Target) -> AsyncIterator[Cli]:
    (tmp_path / "dsn").write_text(dsn + "\n")
    config = tmp_path / "arv-balance.yml"
    config.write_text(CONFIG.format(folder=tmp_path, port=primary.port, key=write_key(tmp_path)))
    connection = await asyncpg.connect(dsn)
    try:
        yield Cli(tmp_path, config, primary, connection)
    finally:
        await connection.close()
