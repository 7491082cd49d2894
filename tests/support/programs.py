"""Programs that a test runs and a machine may lack."""

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip and say what to do; where CI is set, fail: nothing may go unseen there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need(program: str) -> str:
    """Return the path of a program that `make system-packages` installs."""
    return shutil.which(program) or lacking(f"{program} is missing: make system-packages installs it")
