"""What is rendered and read again is what it was: nothing that both sides can say is lost on the way."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from balancer.importing.importer import read
from balancer.render.description import describe
from balancer.render.engine import ENGINES, render
from tests.render import sites


# Without shrinking, which would take minutes: each example is small enough to read.
@settings(phases=(Phase.explicit, Phase.reuse, Phase.generate))
@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
@given(data=st.data())
def test_a_rendered_file_is_read_back_as_it_was(data: st.DataObject, engine: str) -> None:
    config = sites.config(data.draw(sites.sites(engine=engine)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ENGINES[engine].file_name
        path.write_text(render(ENGINES[engine], describe(config, "site.yml"), {}))
        found = read(path)
    assert found.loaded.errors == ()
    assert found.loaded.config.model_dump() == config.model_dump()
    assert found.lost == ()
