"""Sites for end-to-end tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.site import Site

Build = Callable[..., Site]

# Under load means: in `make test` one round of about 4 s, in `make test-all` five of 15 s.
ROUNDS = [
    pytest.param((1, 4.0), id="once"),
    pytest.param((5, 15.0), id="five times", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
]
UnderLoad = tuple[int, float]


@pytest.fixture
def build() -> Iterator[Build]:
    """Make sites that end with the test."""
    sites: list[Site] = []

    def make(**options: Any) -> Site:
        sites.append(Site(**options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(build: Build) -> Site:
    """Three nodes behind two workers, running and healthy."""
    made = build()
    made.start()
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real processes need time on a busy machine."""
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120))
