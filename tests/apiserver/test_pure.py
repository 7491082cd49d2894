"""Rules without I/O: times, manifests and their signatures, trash, states, parameters, the queue of requests."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver import lifecycle
from apiserver.attributes import dumps, encoded
from apiserver.auth import scope_allows
from apiserver.errors import BadRequestError, InvalidError, UnavailableError
from apiserver.http.limiter import Limiter
from apiserver.http.request import client_address, networks
from apiserver.manifests import Signer, parse, portable_data_hash, stripped
from apiserver.names import base36
from apiserver.parameters import bearer_tokens, normalise, reader_tokens
from apiserver.schema import RESOURCES
from apiserver.times import format_duration, format_time, parse_duration, parse_time
from apiserver.trash import schedule

BLOCK = "acbd18db4cc2f85cedef654fccc4a4d8+3"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


SCALARS = st.none() | st.booleans() | st.integers() | st.text()


def json_values(scalars: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.recursive(scalars, lambda one: st.lists(one) | st.dictionaries(st.text() | st.integers(), one))


@given(json_values(SCALARS))
def test_json_without_fractions_is_the_same_bytes_by_either_encoder(value: object) -> None:
    assert encoded(value) == dumps(value).encode()


@given(json_values(SCALARS | st.floats(allow_nan=False, allow_infinity=False)))
def test_json_is_the_same_values_by_either_encoder(value: object) -> None:
    """0.00001 may be spelt 1e-05."""
    assert json.loads(encoded(value)) == json.loads(dumps(value))


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_the_way_to_a_client_and_back(moment: datetime) -> None:
    text = format_time(moment)
    assert text is not None
    assert parse_time(text) == moment
    assert (len(text), text[-1]) == (30, "Z")


@pytest.mark.parametrize(
    "text",
    ["2026-11-22T04:08:08.057433", "20261122T040808.057433Z", "2026-11-22 04:08:08.057433 UTC",
     "2026-11-22T05:08:08.057433+01:00", "2026-11-22T04:08:08.057433000Z"],
)  # fmt: skip
def test_a_time_is_read_in_every_spelling(text: str) -> None:
    assert parse_time(text) == datetime(2026, 11, 22, 4, 8, 8, 57433, UTC)


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "0001-01-01T00:00:00+23:59"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


@given(st.integers(0, 10**7))
def test_a_duration_survives_its_text(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_uuid_types_come_from_the_names_of_classes() -> None:
    for resource in RESOURCES:
        digest = hashlib.md5(resource.class_name.encode(), usedforsecurity=False).hexdigest()
        assert resource.infix in ("", base36(int(digest, 16))[-5:])


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.integers(0, 2**32 - 1))
def test_a_signed_manifest_is_accepted_until_it_expires_and_by_its_token_only(token: str, expiry: int) -> None:
    manifest = f". {BLOCK} 0:3:foo\n./d {BLOCK}+Zhint {BLOCK} 0:6:bar\n"
    signer = Signer("key", token, 1209600)
    signed = signer.sign(manifest, expiry)
    assert signed.count("+A") == 3
    assert signer.unsigned(signed, expiry) == []
    assert len(signer.unsigned(signed, expiry + 1)) == 3
    assert len(Signer("key", token + "x", 1209600).unsigned(signed, 0)) == 3
    assert stripped(signed) == manifest
    assert portable_data_hash(signed) == portable_data_hash(manifest)
    assert parse(signed) == parse(manifest)


def test_a_locators_signature_is_the_one_of_the_arvados_sdk() -> None:
    # The known key, token and signature of sdk/go's tests (Apache-2.0).
    key = (
        "13u9fkuccnboeewr0ne3mvapk28epf68a3bhj9q8sb4l6e4e5mkkp6nhj2mmpscgu1zze5h5enydxfe3j215024u16ij4hjaiqs5u4pzsl3nczma"
        "oxncljkm4875xqn4xv058koz3vkptmzhyheiy6wzevzjmdvxhvcqsvr5abhl15c2d4o4jhl0s91lojy1mtrzqqvprqcverls0xvy9vai9t1l1lvv"
        "azpuadafm71jl4mrwq2ygokee3eamvjy8qq1fvy238838enjmy5wzy2md7yvsitp5vztft6j4q866efym7e6vu5wm9fpnwjyxfldw3vbo01mgjs7"
        "5rgo7qioh8z8ij7jpyp8508okhgbbex3ceei786u5rw2a9gx743dj3fgq2irk"
    )
    signer = Signer(key, "hocfupkn2pjhrpgp2vxv8rsku7tvtx49arbc9s4bvu7p7wxqvk", 1209600)
    signed = f". {BLOCK}+A89118b78732c33104a4d6231e8b5a5fa1e4301e3@7fffffff 0:3:f\n"
    assert signer.sign(f". {BLOCK} 0:3:f\n", 0x7FFFFFFF) == signed


@pytest.mark.parametrize(
    ("trash_at", "delete_at", "expected"),
    [
        (None, None, (None, None, False)),
        (NOW - DAY, None, (NOW, NOW + 14 * DAY, True)),
        (NOW + DAY, None, (NOW + DAY, NOW + 15 * DAY, False)),
        (NOW, NOW, (NOW, NOW + 2 * DAY, True)),
        (None, NOW, (None, None, False)),
    ],
)
def test_trash_is_scheduled_by_rule(trash_at: datetime | None, delete_at: datetime | None, expected: object) -> None:
    found = schedule(trash_at, delete_at, now=NOW, lifetime=14 * DAY, minimum=2 * DAY)
    assert (found.trash_at, found.delete_at, found.is_trashed) == expected


@pytest.mark.parametrize("table", [lifecycle.REQUEST_STATES, lifecycle.CONTAINER_STATES])
def test_state_tables_name_only_states_that_they_know(table: dict[str | None, frozenset[str]]) -> None:
    known = {state for state in table if state is not None}
    assert set().union(*table.values()) <= known
    assert all(state in table[state] for state in known)


def test_unknown_changes_of_state_are_errors() -> None:
    lifecycle.check_container_state("Locked", "Running")
    for old, new in (("Queued", "Running"), ("Cancelled", "Queued"), (None, "Locked"), ("nosuch", "Queued")):
        with pytest.raises(InvalidError):
            lifecycle.check_container_state(old, new)


@pytest.mark.parametrize(
    ("scopes", "method", "path", "allowed"),
    [
        (["all"], "DELETE", "/arvados/v1/x", True),
        (["GET /arvados/v1/x"], "GET", "/arvados/v1/x", True),
        (["GET /arvados/v1/x"], "HEAD", "/arvados/v1/x", True),
        (["GET /arvados/v1/x"], "GET", "/arvados/v1/x/y", False),
        (["GET /arvados/v1/x/"], "GET", "/arvados/v1/x/y", True),
        (["GET /"], "POST", "/arvados/v1/x", False),
        ([], "GET", "/arvados/v1/api_client_authorizations/current", True),
    ],
)
def test_scopes_allow_methods_on_paths(scopes: list[str], method: str, path: str, allowed: bool) -> None:
    assert scope_allows(scopes, method, path) is allowed


def test_parameters_get_their_types() -> None:
    pairs = [("limit", "5"), ("distinct", "false"), ("count", "none"), ("order", "name, uuid desc"), ("filters", "[]"),
             ("select", '["a"]'), ("where", ""), ("uuid", "null"), ("name", "[not json"), ("alt", "json")]  # fmt: skip
    assert normalise(pairs) == {
        "limit": 5, "distinct": False, "count": "none", "order": ["name", "uuid desc"], "filters": [], "select": ["a"],
        "name": "[not json", "alt": "json",
    }  # fmt: skip
    with pytest.raises(BadRequestError):
        normalise([("filters", "[")])
    for wrong in ("x", "-2", "1.5", True):
        with pytest.raises(InvalidError):
            normalise([("limit", wrong)])


def test_tokens_are_read_from_headers() -> None:
    assert bearer_tokens("Bearer t") == bearer_tokens("OAuth2 t") == bearer_tokens("Basic dTp0") == ["t"]
    assert bearer_tokens("Basic !") == bearer_tokens("Bearer ") == bearer_tokens(None) == []
    assert reader_tokens('["a", 1]') == ("a",)
    assert reader_tokens(json.dumps(["t"] * 100)) == ()


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "10.0.0.1", "192.0.2.1"),  # not our proxy: what it claims is not believed
        ("127.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "192.0.2.9, 10.0.0.1, 127.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.5, 127.0.0.6", "127.0.0.5"),
        ("", "10.0.0.1:4711", "10.0.0.1"),
        ("", "[2001:db8::1]:4711", "2001:db8::1"),
        ("127.0.0.1", "10.0.0.1, unknown, 127.0.0.5", "127.0.0.5"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_that_no_proxy_is(peer: str, forwarded: str, expected: str) -> None:
    assert client_address(peer, forwarded, networks(["127.0.0.0/8"])) == expected


async def test_waiting_requests_run_by_priority_and_the_last_of_the_lowest_is_refused() -> None:
    limiter, order = Limiter(running=1, queued=2), []
    release = asyncio.Event()

    async def run(name: str, priority: int) -> None:
        try:
            async with limiter.slot(priority, timeout_s=None, is_gone=lambda: False):
                order.append(name)
                await release.wait()
        except UnavailableError:
            order.append(f"{name} refused")

    async with asyncio.TaskGroup() as tasks:
        for name, priority in (("first", 0), ("low", 0), ("lower", -1), ("high", 1), ("late", 0)):
            tasks.create_task(run(name, priority))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (limiter.running, limiter.queued) == (1, 2)
        release.set()
    assert order == ["first", "lower refused", "late refused", "high", "low"]
    assert (limiter.running, limiter.queued) == (0, 0)


async def test_a_cancelled_or_late_wait_gives_its_place_back() -> None:
    limiter = Limiter(running=1, queued=5)
    async with limiter.slot(0, timeout_s=None, is_gone=lambda: False):
        with pytest.raises(UnavailableError):
            async with limiter.slot(0, timeout_s=0.01, is_gone=lambda: False):
                raise AssertionError("it must not run")
        waiting = asyncio.ensure_future(limiter.slot(0, timeout_s=None, is_gone=lambda: False).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert limiter.queued == 0
    async with limiter.slot(0, timeout_s=0.01, is_gone=lambda: False):
        assert limiter.running == 1
    with pytest.raises(UnavailableError):
        async with limiter.slot(0, timeout_s=None, is_gone=lambda: True):
            raise AssertionError("its client has left")
    assert limiter.running == 0
