"""`arv-balance dashboard`: an address with a code, or how to get one."""

import json

from tests.cli.test_commands import shell
from tests.support.ports import free_port


async def test_it_prints_an_address_with_a_code_and_says_whom_it_logs_in() -> None:
    listen = f"127.0.0.1:{free_port()}"
    async with shell("api1") as (run, _):
        run.control.config["admin"] |= {"listen": listen}
        run.control.write_config()
        await run.control.post("/v1/config/reload")
        printed = await run("dashboard")
        assert printed.out.startswith(f"http://{listen}/ui/login#")
        assert printed.out.count("\n") == 1
        assert "logs you in as admin, once, within 5 minutes" in printed.err
        document = json.loads((await run("dashboard", "--json")).out)
        assert (document["role"], document["addresses"]) == ("admin", [f"http://{listen}/ui/"])
        assert document["code"] not in printed.out


async def test_without_an_address_it_says_how_to_get_there() -> None:
    async with shell("api1") as (run, _):
        found = await run("dashboard")
        assert found.code == 1
        assert "admin.listen is not set" in found.err
        assert f"ssh -L 8081:{run.control.socket}" in found.err
