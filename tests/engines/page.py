"""docs/engines.md: the capability matrix and the scenario table, from the code and from what a run saw."""

from balancer.render.capabilities import FEATURES
from balancer.render.engine import ENGINES
from balancer.render.feature import Feature, Grade
from balancer.render.settings import SETTINGS
from tests.engines.conftest import Seen
from tests.engines.fronts import SERVE
from tests.engines.scenarios import SCENARIOS

_SIGNS = {Grade.EXACT: "=", Grade.APPROXIMATED: "~", Grade.IMPOSSIBLE: "no"}


def text(seen: dict[str, Seen]) -> str:
    """Return the page."""
    counts = {name: sum(seen[name][row.name] == seen[SERVE][row.name] for row in SCENARIOS) for name in ENGINES}
    rows = []
    for row in SCENARIOS:
        cells = ["=" if seen[name][row.name] == seen[SERVE][row.name] else seen[name][row.name] for name in ENGINES]
        rows.append(f"| {' | '.join(map(_cell, [row.name, seen[SERVE][row.name], *cells]))} |")
    return f"""<!-- Written by tests/engines from the capability matrix and from its run. Do not edit. -->

# Other engines

`arv-balance render ENGINE` writes the configuration of another balancer from the same file;
`arv-balance render-haproxy` is the short way to the first of them. What an engine cannot do stands at the head of the
file that is written, on standard error, and with `--report json` in a form for programs.

```console
$ arv-balance render-haproxy -c arv-balance.yml -o haproxy.cfg --check
$ arv-balance render nginx --with-intents --report json > nginx.conf
```

`--with-intents` lays over the file what operators changed at run time: a drained node is rendered as drained, and pings
go to the node that holds the designation, also where it is kept in PostgreSQL.
`--check` lets the engine's own checker read the result. Traefik has none, and takes two files: `-o traefik.yml` writes
`traefik.dynamic.yml` beside it. Where a health check needs a token, the engine takes it from the environment variable
`ARV_BALANCE_HEALTH_TOKEN`, or the one that `health.token.env` names, so that no secret is in the file.

## The other way round

`arv-balance import haproxy.cfg` (or `nginx.conf`) reads the front end that is there and writes our configuration
for it: listeners with TLS, servers with weights and limits, routes by path, host, method and field, spare servers
as a designated node, health checks, retries, timeouts and limits. Every line that it could not carry over stands
with its number and the reason on standard error, at the head of the file, and in `--report json`; `--strict` fails
when there is one. A file with several services takes `--frontend NAME` (a front end, or a server name). What
`render` writes is read back as it was.

```console
$ arv-balance import /etc/haproxy/haproxy.cfg -o arv-balance.yml
$ arv-balance check arv-balance.yml
```

## What each can do

`=` as `arv-balance serve`, `~` nearly, `no` not at all. The reasons are below the table.

| | {" | ".join(ENGINES)} |
| --- | {" | ".join("---" for _ in ENGINES)} |
{chr(10).join(_line(feature) for feature in FEATURES)}

{chr(10).join(_reasons(name) for name in ENGINES)}
## Settings

What of the file has no place, or only nearly one, in an engine's. A test changes every key and demands that what is
rendered changes, or that it is named here.

| what | {" | ".join(ENGINES)} |
| --- | {" | ".join("---" for _ in ENGINES)} |
{chr(10).join(_words(feature) for feature in SETTINGS)}

## How that is known

The real programs were run with the rendered files in front of the same three recording nodes, beside `serve`. `=` is
the same as `serve`, which stands in the second column. Equal rows of {len(SCENARIOS)}:
{", ".join(f"{name} {count}" for name, count in counts.items())}.

| what is sent | serve | {" | ".join(ENGINES)} |
| --- | --- | {" | ".join("---" for _ in ENGINES)} |
{chr(10).join(rows)}

Run with Debian's HAProxy 2.6 and nginx 1.22, HAProxy 2.8 (all rows as 2.6), Envoy 1.40, Traefik 3.7 and Caddy 2.11.
`--target-version` 2.4 and 3.0 of HAProxy are rendered, and not verified: the report says so.
"""


def _cell(value: str) -> str:
    return value.replace("\n", "\\n").replace("|", "\\|")


def _words(feature: Feature) -> str:
    cells = (feature.cell(name) for name in ENGINES)
    return f"| {' | '.join([feature.title, *(f'{_SIGNS[cell.grade]} {cell.how}'.strip() for cell in cells)])} |"


def _line(feature: Feature) -> str:
    cells = [_SIGNS[feature.cell(name).grade] for name in ENGINES]
    return f"| {' | '.join([feature.title, *cells])} |"


def _reasons(name: str) -> str:
    lines = [
        f"- {feature.title}: {feature.cell(name).how}"
        for feature in FEATURES
        if feature.cell(name).grade is not Grade.EXACT
    ]
    return f"**{name}**\n\n" + "\n".join(lines) + "\n"
