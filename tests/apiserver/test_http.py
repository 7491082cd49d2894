"""What every request meets: ids, errors, encodings, override, health, discovery."""

import asyncio
import base64
import json

import aiohttp
import pytest

from apiserver.http.request import MAX_TOKENS
from tests.support.api import MANAGEMENT, ROOT, Client, api_database, api_template, root, running, settings
from tests.support.postgres import postgres_server

__all__ = ["api_database", "api_template", "postgres_server", "root"]
pytestmark = pytest.mark.pg
DISCOVERY = "/discovery/v1/apis/arvados/v1/rest"


async def test_a_request_id_is_kept_made_or_replaced_and_shown_in_errors(root: Client) -> None:
    kept = await root.call("GET", "users/current", headers={"X-Request-Id": "req-mine"})
    assert kept.headers["X-Request-Id"] == "req-mine"
    made = await root.call("GET", "users/current")
    assert made.headers["X-Request-Id"].startswith("req-")
    assert len(made.headers["X-Request-Id"]) == 24
    replaced = await root.call("GET", "users/current", headers={"X-Request-Id": "x" * 1025})
    assert replaced.headers["X-Request-Id"].startswith("req-")
    failed = await root.call("GET", "nosuch", headers={"X-Request-Id": "req-wrong"})
    assert failed.status == 404
    assert isinstance(failed.body["errors"], list)
    assert "(req-wrong)" in failed.body["errors"][0]


async def test_health_says_ok_only_to_the_management_token(root: Client) -> None:
    assert (await root.with_token(None).call("GET", "/_health/ping")).status == 401
    assert (await root.with_token("other").call("GET", "/_health/ping")).status == 403
    good = await root.with_token(MANAGEMENT).call("GET", "/_health/ping")
    assert (good.status, good.body) == (200, {"health": "OK"})
    oauth = await root.with_token(None).call("GET", "/_health/ping", headers={"Authorization": f"OAuth2 {MANAGEMENT}"})
    assert oauth.status == 403


async def test_tokens_are_taken_from_every_place(root: Client) -> None:
    bare = root.with_token(None)
    assert (await bare.call("GET", "users/current")).status == 401
    assert "WWW-Authenticate" not in (await bare.call("GET", "users/current")).headers
    assert (await bare.call("GET", "users/current", api_token=ROOT)).status == 200
    for header in (f"Bearer {ROOT}", f"OAuth2 {ROOT}", aiohttp.encode_basic_auth("any", ROOT)):
        assert (await bare.call("GET", "users/current", headers={"Authorization": header})).status == 200
    form = await bare.http.post(f"{bare.base}/arvados/v1/users/current", data={"_method": "GET", "api_token": ROOT})
    assert form.status == 200


async def test_of_many_tokens_the_first_ones_are_tried(root: Client) -> None:
    bare = root.with_token(None)
    for before, status in ((MAX_TOKENS - 1, 200), (MAX_TOKENS, 401)):
        tokens = "&".join(f"api_token=wrong{number}" for number in range(before))
        answer = await bare.call("GET", f"/arvados/v1/users/current?{tokens}&api_token={ROOT}")
        assert answer.status == status


async def test_a_token_in_a_cookie_reads_and_changes_nothing(root: Client) -> None:
    cookie = {"Cookie": f"arvados_api_token={base64.urlsafe_b64encode(ROOT.encode()).decode()}"}
    bare = root.with_token(None)
    assert (await bare.call("GET", "users/current", headers=cookie)).status == 200
    made = {"group": {"group_class": "project", "name": "forged"}}
    assert (await bare.call("POST", "groups", made, headers=cookie)).status == 401
    form = {"group": json.dumps(made["group"])}  # what a page of another site can have a browser send
    async with bare.http.post(f"{bare.base}/arvados/v1/groups", data=form, headers=cookie) as response:
        assert response.status == 401
    assert (await root.get("groups", filters=[["name", "=", "forged"]]))["items"] == []


async def test_without_a_management_token_nobody_sees_health_numbers_or_requests(api_database: str) -> None:
    async with running(settings(api_database, management_token="")) as base, aiohttp.ClientSession() as http:
        for path in ("/_health/ping", "/metrics", "/_inspect/requests"):
            answer = await Client(base, http, None).call("GET", path)
            assert (answer.status, "disabled" in str(answer.body)) == (404, True), path


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (b"Authorization: Bearer \xff\xed\xa0\x80", 401),
        (b"Authorization: Bearer v2/zzzzz-gj3su-000000000000001/\xff", 401),
        (b"Cookie: arvados_api_token=\xff", 401),
        (b"Idempotency-Key: \xff", 422),
        (b"X-Forwarded-For: \xff", 200),
        (b"X-Request-Id: \xff", 200),
        (b"X-Arv-Designation: \xff", 200),
    ],
)
async def test_fields_of_any_bytes_are_answered(root: Client, field: bytes, status: int) -> None:
    body = json.dumps({"api_client_authorization": {"scopes": ["all"]}}).encode()
    host, _, port = root.base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = b"" if field.startswith((b"Auth", b"Cookie")) else f"Authorization: Bearer {ROOT}\r\n".encode()
    writer.write(
        b"POST /arvados/v1/api_client_authorizations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + token + field
        + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )  # fmt: skip
    answer = await reader.read()
    writer.close()
    assert int(answer.split()[1]) == status, answer


async def test_a_long_get_comes_as_a_post_with_override(root: Client) -> None:
    filters = json.dumps([["uuid", "in", ["zzzzz-tpzed-000000000000000", *("x" * 50 for _ in range(100))]]])
    response = await root.http.post(
        f"{root.base}/arvados/v1/users",
        data={"filters": filters, "alt": "json"},
        headers={"X-Http-Method-Override": "GET", "Authorization": f"Bearer {ROOT}"},
    )
    assert response.status == 200
    assert [item["uuid"] for item in (await response.json())["items"]] == ["zzzzz-tpzed-000000000000000"]
    direct = await root.get("users", filters=json.loads(filters))
    assert len(direct["items"]) == 1


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"filters": [[["uuid"] * 40_000, "=", "x"]]}, 422),
        ({"filters": [[["any"] * 100, "=", "x"]] * 300}, 422),
        ({"filters": [["uuid", "=", None]] * 1001}, 422),
        ({"where": {f"properties.{number}": None for number in range(1001)}}, 422),
        ({"order": ["email desc", "username"] * 20_000}, 200),
        ({"select": ["email", "username"] * 20_000}, 200),
    ],
)
async def test_long_lists_are_refused_or_mean_what_short_ones_mean(root: Client, asked: object, status: int) -> None:
    answer = await root.call("POST", "users", asked, headers={"X-Http-Method-Override": "GET"})
    assert answer.status == status, answer.body


async def test_discovery_is_cacheable_and_tells_the_external_address(root: Client) -> None:
    found = await root.with_token(None).call("GET", DISCOVERY)
    assert found.body["rootUrl"] == "https://api.test.example/"
    assert found.body["websocketUrl"].startswith("wss://")
    again = await root.call("GET", DISCOVERY, headers={"If-None-Match": found.headers["ETag"]})
    assert again.status == 304
    assert (await root.call("GET", DISCOVERY.replace("v1/rest", "v9/rest"))).status == 404


async def test_every_reference_in_discovery_is_defined(root: Client) -> None:
    document = (await root.call("GET", DISCOVERY)).body
    for resource, entry in document["resources"].items():
        for name, method in entry["methods"].items():
            for holder in [method["response"], *method.get("request", {}).get("properties", {}).values()]:
                assert holder.get("$ref") is None or holder["$ref"] in document["schemas"], (resource, name)
            assert all(isinstance(p.get("default", ""), str) for p in method["parameters"].values())


async def test_unsupported_resources_say_why(root: Client) -> None:
    for path in ("jobs", "repositories", "pipeline_instances"):
        response = await root.call("GET", path)
        assert response.status == 404
        assert "not available" in response.errors


async def test_cors_and_options_need_no_token(root: Client) -> None:
    response = await root.with_token(None).call("OPTIONS", "collections")
    assert (response.status, response.body) == (200, None)
    assert response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("DELETE", "users", None, 405),
        ("GET", "users/zzzzz-tpzed-nosuchnosuchnos", None, 404),
        ("GET", "users/%00", None, 404),
        ("GET", "users/%ff", None, 400),
        ("POST", "groups", [1, 2], 400),
        ("POST", "groups", {"group": "text"}, 422),
        ("POST", "groups", {"group": {"nosuch": 1}}, 422),
        ("POST", "groups", {"group": {"group_class": "project", "name": "a\x00b"}}, 422),
        ("POST", "groups", {"group": {"group_class": "project", "name": "\ud800"}}, 422),
        ("POST", "groups", {"group": {"group_class": "project", "name": {"a": 1}}}, 422),
        ("POST", "groups", {"group": {"group_class": "project", "name": "x", "properties": 5}}, 422),
    ],
)
async def test_what_cannot_be_served_says_why(root: Client, method: str, path: str, body: object, status: int) -> None:
    response = await root.call(method, path, body)
    assert response.status == status, response.body
    assert response.body["errors"][0]


async def test_numbers_tell_of_waits_for_connections_and_locks(root: Client) -> None:
    await root.post("groups", {"group": {"group_class": "project", "name": "p"}})
    text = (await root.with_token(MANAGEMENT).call("GET", "/metrics")).body
    numbers = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert numbers["arv_api_db_acquire_duration_seconds_count"] > 0
    assert numbers['arv_api_lock_wait_seconds_count{lock="permissions"}'] > 0
    assert numbers['arv_api_leader{role="trash_sweep"}'] in (0.0, 1.0)
    assert (await root.with_token("wrong").call("GET", "/metrics")).status == 403
