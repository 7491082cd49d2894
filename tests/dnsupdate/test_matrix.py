"""All that name servers say no to, or do not answer, provoked at each of them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dns.name
import pytest

from dnsupdate.update import Add, Update
from tests.dnsupdate.matrix import APPLIED, ROWS, SILENT, Row, answer, helps, page, send_to
from tests.dnsupdate.servers import ZONES, Target, real
from tests.support.nameservers import CLOSED, LIMITED, SPOILT
from tests.support.postgres import until

PAGE = Path(__file__).parents[2] / "docs" / "dns-errors.md"


@pytest.fixture(scope="module")
def powerdns() -> Iterator[Target]:
    with real("powerdns") as target:
        yield target


CASES = [
    pytest.param(server, row, id=f"{server}-{row.case}", marks=[pytest.mark.slow] if server == "powerdns" else [])
    for row in ROWS
    for server in row.answers
]


@pytest.mark.parametrize(("server", "row"), CASES, indirect=["server"])
async def test_each_mistake_has_its_answer_its_words_and_no_other_effect(server: Target, row: Row) -> None:
    if row.before is not None:
        assert (await send_to(server.peer(), row.before)).diagnosis.is_applied
    with row.state(server):
        diagnosis = (await row.send(server, row.update)).diagnosis
    seen = answer(row, server)
    assert replace(diagnosis.seen, skew_s=None) == seen, diagnosis
    assert helps(row, server.kind, seen) in str(diagnosis)
    assert "{" not in str(diagnosis)
    expected = row.there.get(server.kind, seen in (APPLIED, SILENT))
    if seen == SILENT and expected:
        await until(lambda: is_there(server, row.update))
    assert is_there(server, row.update) is expected


def is_there(target: Target, update: Update) -> bool:
    """Whether the last record of an update is in its zone."""
    if update.zone not in (*ZONES, CLOSED, LIMITED, SPOILT):
        return False
    last = update.operations[-1]
    assert isinstance(last, Add)
    if update.zone == SPOILT:  # cannot be transferred either
        assert target.process is not None
        return bool(target.process.dig(last.name, last.rdtype))
    lines = [line.split() for line in target.records(update.zone)]
    wanted = dns.name.Name(last.name.split("."))
    return any(rdtype == last.rdtype and dns.name.from_text(name) == wanted for name, _, rdtype, *_ in lines)


def test_the_page_says_what_the_tests_have_seen() -> None:
    assert PAGE.read_text() == page(), "python -m tests.dnsupdate.matrix > docs/dns-errors.md"
