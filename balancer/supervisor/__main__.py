"""`python -P -m balancer.supervisor`: the process behind `arv-balance serve`."""

import argparse
import contextlib
import importlib
import logging
import os
import resource
import sys
from pathlib import Path
from typing import Any

from balancer.errors import BalanceError
from balancer.notify import Notifier
from balancer.scoreboard import MAGIC
from balancer.supervisor import reexec
from balancer.supervisor.adoption import Survivor, assemble, survivors
from balancer.supervisor.holdings import Holdings, fresh_board, fresh_wakes, own_run_dir
from balancer.supervisor.keeper import ControlSettings
from balancer.supervisor.loop import Loop
from balancer.supervisor.parent import EXIT_CONFIG, EXIT_FAILED, Parent
from balancer.supervisor.rules import Timings
from balancer.supervisor.sockets import activated

logger = logging.getLogger(__name__)
CONTROL = "balancer.control"
MAX_DESCRIPTORS = 1 << 20


def main() -> int:
    """Run the parent; returns the exit code."""
    options = _parser().parse_args()
    logging.basicConfig(format="arv-balance: %(message)s", level=logging.INFO, stream=sys.stderr)
    if options.self_check:
        return _self_check(options)
    os.umask(0o077)
    _raise_descriptor_limit()
    try:
        return _run(options)
    except BalanceError as exc:
        logger.error("%s", exc)
        return EXIT_FAILED


def _self_check(options: argparse.Namespace) -> int:
    """Prove to the parent that runs now that this program starts and can use its configuration."""
    for module in (options.control_module, options.worker_module):
        importlib.import_module(module)
    if options.control_module == CONTROL:
        from balancer.config.file import load

        try:
            load(options.config).require()
        except BalanceError as exc:
            logger.error("%s", exc)
            return EXIT_CONFIG
    with contextlib.suppress(BrokenPipeError):  # who asked is gone
        os.write(1, reexec.self_check().encode())
    return 0


def _run(options: argparse.Namespace) -> int:
    loop = Loop()
    before = reexec.taken_over(os.environ, options.state_dir / "run", loop.now())
    os.environ.pop(reexec.ENVIRONMENT, None)
    found: list[Survivor] = []
    if before is not None:
        held, _ = before
    else:
        held, found = _hold(options.state_dir)
    overrides: dict[str, Any] = {} if options.workers is None else {"workers": options.workers}
    parent = Parent(
        loop,
        held,
        Notifier.from_environment(os.environ, os.getpid()),
        control=ControlSettings(options.control_module, str(options.config), overrides),
        worker_module=options.worker_module,
        timings=Timings(),
        hello=options.hello,
    )
    for slot, process, foreign in before[1] if before is not None else ():
        parent.crew.adopt_outdated(slot, process, foreign=foreign)
    for worker in found:
        if worker.is_current:
            parent.crew.adopt(worker.slot, worker.process)
        else:
            parent.crew.adopt_outdated(worker.slot, worker.process, foreign=worker.layout != MAGIC)
    return parent.run()


def _hold(state_dir: Path) -> tuple[Holdings, list[Survivor]]:
    """Take over from a parent that died, or begin with nothing."""
    run_dir, lock = own_run_dir(state_dir)
    found = survivors(run_dir)
    if found:
        pids = ", ".join(str(worker.process.pid) for worker in found)
        logger.info("taking over %d running workers (pids %s)", len(found), pids)
        held = assemble(found, run_dir, lock)
    else:
        held = Holdings(run_dir, lock, fresh_board(), fresh_wakes())
    held.registry.spare += activated(os.environ, os.getpid())
    return held, found


def _raise_descriptor_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MAX_DESCRIPTORS), hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="balancer.supervisor", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the configuration file, for control")
    parser.add_argument("--state-dir", type=Path, required=True, help="holds run/ with the workers' sockets")
    parser.add_argument("--workers", type=int, help="stands above the configuration")
    parser.add_argument("--hello", default="", help="what to say to people when all is ready")
    parser.add_argument("--control-module", default=CONTROL, help=argparse.SUPPRESS)
    parser.add_argument("--worker-module", default="balancer.worker", help=argparse.SUPPRESS)
    parser.add_argument("--self-check", action="store_true", help="start, say which state is taken over, end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
