"""A parent with stand-in children for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parent import ParentUnderTest


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[ParentUnderTest]:
    under_test = ParentUnderTest(tmp_path)
    yield under_test
    under_test.close()
