"""`python -P -m bench`: run the comparison and our growth, print the tables, on wish keep them in RESULTS.md."""

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import growth, report
from bench.compare import Plan, Results, compare
from bench.machine import BenchError, commit, describe, output_of, raise_limits
from bench.rows import NAMES
from bench.stage import stage
from bench.targets import BASE, ON_REQUEST, OURS, TARGETS, Target

_RESULTS = Path(__file__).with_name("RESULTS.md")
_GROWTH = "growth"
_MAX_MINUTES = 12.0
_STARTED = time.monotonic()
_SMOKE_TARGETS = (BASE, OURS)
_ALL_TARGETS = tuple(name for name in TARGETS if name not in ON_REQUEST)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -P -m bench", description=__doc__)
    parser.add_argument("--rows", help=f"some of {','.join((*NAMES, _GROWTH))}; default all")
    parser.add_argument("--targets", help=f"some of {','.join(TARGETS)}; default all that are installed")
    parser.add_argument("--seconds", type=float, default=0.8, help="length of one run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often all is done (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.4 s: a look, not a result")
    parser.add_argument("--smoke", action="store_true", help="1 round of 0.3 s with two targets: does everything run?")
    parser.add_argument("--minutes", type=float, default=_MAX_MINUTES - 2, help="no round begins later than this")
    parser.add_argument("--write", action="store_true", help=f"put the results on top of {_RESULTS.name}")
    options = parser.parse_args(argv)
    if options.quick:
        options.seconds, options.rounds = 0.4, 2
    if options.smoke:
        options.seconds, options.rounds = 0.3, 1
        options.rows = options.rows or "small,tls,ws125,idle"
        options.targets = options.targets or ",".join(_SMOKE_TARGETS)
    options.rows = _some("row", options.rows, (*NAMES, _GROWTH)) or (*NAMES, _GROWTH)
    options.targets = _some("target", options.targets, tuple(TARGETS)) or _ALL_TARGETS
    return options


def _some(kind: str, wanted: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(wanted.split(",")) if wanted else ()
    for name in names:
        if name not in known:
            raise BenchError(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    return names


def _installed(names: Sequence[str]) -> list[Target]:
    found = []
    for name in names:
        missing = TARGETS[name].missing()
        if missing:
            _say(f"left out: {missing}")
        else:
            found.append(TARGETS[name])
    if not found:
        raise BenchError("none of the targets is installed")
    return found


def _say(line: str) -> None:
    print(f"[{time.monotonic() - _STARTED:5.1f} s] {line}", file=sys.stderr, flush=True)


def _measure(options: argparse.Namespace) -> tuple[list[report.Table], Results, list[Target]]:
    targets = _installed(options.targets)
    plan = Plan(
        seconds=options.seconds,
        rounds=options.rounds,
        deadline=time.monotonic() + options.minutes * 60,
        idle_share=0.05 if options.smoke else 1.0,
    )
    with stage() as on:
        results = compare(on, targets, options.rows, plan, _say)
        tables = [report.comparison(results, targets, options.rows)] if set(options.rows) - {_GROWTH} else []
        if _GROWTH in options.rows and TARGETS[OURS] in targets:
            base = TARGETS[BASE] if TARGETS[BASE] in targets else None
            grown = growth.growth(on, TARGETS[OURS], base, plan, _say)
            tables.append(growth.table(grown, OURS, BASE))
    return tables, results, targets


def _section(
    tables: Sequence[report.Table], results: Results, targets: Sequence[Target], argv: Sequence[str], seconds: float
) -> str:
    command = shlex.join(["python", "-P", "-m", "bench", *argv])
    versions = "; ".join(target.version() for target in targets)
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit()}",
        "",
        f"`{command}`: {results.rounds} rounds of {seconds:g} s. {describe()}.",
        f"Versions: {versions}; {output_of(['wrk', '-v']).splitlines()[0].split(' [')[0]}.",
        f"Other programs took {results.foreign():.0%} of the target's core (median over all runs).",
        "",
        *("\n".join((report.markdown(table), "")) for table in tables),
    ]
    missed = report.misses(results)
    lines.append("Goals missed: " + ("; ".join(missed) if missed else "none of those measured") + ".")
    return "\n".join(lines) + "\n"


def _write(section: str) -> None:
    text = _RESULTS.read_text()
    top, mark, older = text.partition("\n## ")
    _RESULTS.write_text(top.rstrip() + "\n\n" + section + (mark + older if mark else ""))


def main(argv: Sequence[str]) -> int:
    """Run; returns 0, or 1 when requests failed."""
    options = _arguments(argv)
    raise_limits()
    tables, results, targets = _measure(options)
    for table in tables:
        print(report.text(table) + "\n")
    if results.samples:
        print(f"other programs on the target's core: {results.foreign():.0%}")
    for sentence in report.misses(results):
        print(f"goal missed: {sentence}")
    for row, name, errors in results.failed():
        print(f"FAILED: {errors} requests of {name} in row {row}")
    if options.write:
        _write(_section(tables, results, targets, argv, options.seconds))
        print(f"written to {_RESULTS}")
    return 1 if results.failed() else 0


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that everything started is stopped then, too
    try:
        sys.exit(main(sys.argv[1:]))
    except BenchError as exc:
        sys.exit(f"bench: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)
