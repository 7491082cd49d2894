"""The site that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.doctor.harness import SpoilSite


@pytest.fixture(scope="module")
def site() -> Iterator[SpoilSite]:
    """One running site for all tests of a module."""
    found = SpoilSite()
    try:
        found.start()
        yield found
    finally:
        found.close()
