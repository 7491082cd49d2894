"""What is mistyped or cannot be: each command says what, why and what to try, with the exit code of its kind."""

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
