"""The control process: puts its pieces together, runs them in one group, ends when the parent is gone."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from balancer import scoreboard as sb
from balancer import snapshot as codec
from balancer.config.file import load
from balancer.control import logs
from balancer.control.addresses import Addresses
from balancer.control.board import Board
from balancer.control.child import Child, from_environment
from balancer.control.control import Control
from balancer.control.events import EventLog
from balancer.control.intents import IntentStore
from balancer.control.link import Link
from balancer.control.publisher import Publisher
from balancer.control.site import Clock, Parts, Site
from balancer.control.statefile import StateFile
from balancer.errors import BalanceError, ConfigError, StateError, WireError
from balancer.model import Snapshot

logger = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 3


class ParentGoneError(WireError):
    """The parent closed its end: there is nothing left to control."""


def main() -> int:
    """Run the control process; returns the exit code."""
    logs.configure("info", journald="JOURNAL_STREAM" in os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's
    try:
        child = from_environment(os.environ)
        asyncio.run(run(child))
    except* ParentGoneError:
        return 0
    except* ConfigError as group:
        _complain(group)
        return EXIT_CONFIG
    except* BalanceError as group:
        _complain(group)
        return EXIT_FAILED
    return 0


def _complain(group: BaseExceptionGroup[BalanceError]) -> None:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            _complain(exc)
        else:
            sys.stderr.write(f"{exc}\n")
