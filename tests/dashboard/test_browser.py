"""The dashboard in a real browser, over a real balancer with traffic."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Tab, chromium, tab
from tests.support.ports import free_port
from tests.support.site import Site
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

SECRETS = {"viewer": "viewer-secret", "operator": "operator-secret", "admin": "admin-secret"}
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
THEMES = ("light", "dark")

INJECTED = """() => {
  const script = document.createElement("script");
  script.textContent = "window.ran = 1";
  document.body.append(script);
  document.body.insertAdjacentHTML("beforeend", '<img src="/ui/none" onerror="window.ran = 2">');
}"""
FORGED = """(action) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action });
  document.body.append(form);
  form.submit();
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(
        nodes=3,
        workers=1,
        admin={"listen": f"127.0.0.1:{free_port()}", "tokens": tokens(tmp_path_factory.mktemp("tokens"))},
        designated={"dns": {"order": ["api1", "api2"]}},
    )
    made.extra["routes"] = [{"name": "a-route-with-a-long-name", "match": {"path": "/arvados/v1/slow"}}]
    made.extra["nodes"] = {
        name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 64} for name, node in made.nodes.items()
    }
    try:
        made.start()
        with made.load("--clients", "2"):
            yield made
    finally:
        made.close()


def tokens(folder: Path) -> list[dict[str, str]]:
    found = []
    for role, secret in SECRETS.items():
        file = folder / role
        file.write_text(secret)
        file.chmod(0o600)
        found.append({"name": f"the-{role}", "role": role, "file": str(file)})
    return found


def base(site: Site) -> str:
    return f"http://{site.config()['admin']['listen']}"


@pytest.fixture
def operator(browser: Any, site: Site) -> Iterator[Tab]:
    with tab(browser, base(site), viewport=DESKTOP) as made:
        made.log_in(SECRETS["operator"])
        yield made
        assert made.complaints == []


@pytest.fixture(autouse=True)
def _as_before(site: Site) -> Iterator[None]:
    yield
    for intent in site.admin("GET", "/v1/status")["intents"]:
        if intent["kind"] == "pause":
            site.admin("POST", "/v1/resume")
        elif intent["node"]:
            site.admin("POST", f"/v1/nodes/{intent['node']}/forget")
    site.until_healthy(3)


def test_numbers_and_states_change_by_themselves(operator: Tab, site: Site) -> None:
    operator.wait_for_text("#link", "live")
    before = operator.text("#zone-ledger tfoot .n")
    operator.wait_for("([old]) => document.querySelector('#zone-ledger tfoot .n').innerText !== old", before)
    operator.page.evaluate("window.stayed = true")
    operator.page.focus("#node-api3 a[data-ask]")
    site.admin("POST", "/v1/nodes/api2/drain", {"reason": "seen from elsewhere"})
    operator.wait_for_text("#node-api2 .pill", "drained")
    assert "seen from elsewhere" in operator.text("#note-api2")
    assert "api2 is draining" in operator.text("#zone-events")
    assert operator.page.evaluate("window.stayed"), "the page was loaded anew"
    assert operator.page.evaluate("document.activeElement.closest('tr').id") == "node-api3", "the focus was lost"
    site.admin("POST", "/v1/nodes/api2/undrain")
    operator.wait_for_text("#node-api2 .pill", "healthy")
    assert operator.page.query_selector("#note-api2") is None


def test_a_node_is_drained_by_button_with_a_reason_and_undone(operator: Tab, site: Site) -> None:
    operator.page.click("#node-api3 a[data-ask]")
    operator.page.wait_for_selector("dialog[open]")
    assert "2 of 3 nodes will serve; 50 % more load each." in operator.text("dialog")
    assert operator.page.evaluate("document.activeElement.id") == "reason"
    assert operator.violations() == []
    operator.page.keyboard.press("Escape")
    operator.page.wait_for_selector("dialog[open]", state="detached")
    assert site.states()["api3"] == "healthy"
    operator.page.click("#node-api3 a[data-ask]")
    operator.page.fill("dialog #reason", "disk swap")
    operator.page.click("dialog button[type=submit]")
    operator.wait_for_text(".notice", "disk swap")
    operator.wait_for_text("#node-api3 .pill", "drained")
    (intent,) = site.admin("GET", "/v1/status")["intents"]
    assert (intent["who"], intent["reason"]) == ("the-operator", "disk swap")
    operator.page.click(".notice button")
    operator.wait_for_text("#node-api3 .pill", "healthy")
    assert "?" not in operator.page.url


def test_traffic_is_paused_and_goes_on(operator: Tab, site: Site) -> None:
    operator.page.click("#zone-head a[data-ask]")
    operator.page.fill("dialog #typed", "xtest")
    operator.page.fill("dialog #reason", "failover")
    operator.page.click("dialog button[type=submit]")
    operator.wait_for_text("#zone-head .pill", "paused")
    operator.wait_for_text("#zone-causes", "Nothing is in flight")
    operator.wait_for("() => document.title.startsWith('‖ paused')")
    assert "failover" in operator.text("#zone-causes")
    assert operator.violations() == []
    operator.page.click("#zone-head a[data-ask]")
    operator.page.click("dialog button[type=submit]")
    operator.wait_for_text("#zone-head .pill", "healthy")


def test_what_is_slow_now_is_named(operator: Tab, site: Site) -> None:
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(site.ask, path="/arvados/v1/slow?delay=4&api_token=hidden")
        operator.wait_for_text("#zone-slow", "GET /arvados/v1/slow")
        assert "hidden" not in operator.text("#zone-slow")
        assert operator.violations() == []
        assert answer.result()[0] == 200
    operator.wait_for("() => !document.querySelector('#zone-slow section')")


def test_a_dead_node_is_told_with_its_cause(operator: Tab, site: Site) -> None:
    site.nodes["api3"].kill()
    operator.wait_for_text("#node-api3 .pill", "unhealthy")
    operator.wait_for_text("#zone-causes", "api3 is unhealthy")
    operator.wait_for_text("#zone-head .pill", "degraded")
    assert operator.violations() == []
    site.nodes["api3"].start()
    operator.wait_for_text("#zone-head .pill", "healthy")
    assert operator.page.query_selector("#zone-causes li") is None


def test_the_page_says_when_it_is_stale_and_comes_back(operator: Tab, site: Site) -> None:
    operator.wait_for_text("#link", "live")
    operator.page.context.set_offline(True)
    site.kill(site.control_pid())
    operator.wait_for_text("#link", "stale")
    operator.page.context.set_offline(False)
    operator.wait_for_text("#link", "live")
    operator.wait_for_text("#zone-head .pill", "healthy")
    operator.complaints.clear()  # a browser complains about a connection that ends


def test_a_viewer_sees_everything_and_no_button(browser: Any, site: Site) -> None:
    with tab(browser, base(site)) as viewer:
        viewer.log_in(SECRETS["viewer"])
        assert viewer.page.query_selector_all("a[data-ask]") == []
        assert "the-viewer" in viewer.text(".who")
        viewer.page.click(".who button")
        viewer.page.wait_for_selector("#secret")
        viewer.open()
        assert viewer.page.url.endswith("/ui/login?next=/ui/")
        assert viewer.complaints == []


def test_a_log_out_elsewhere_ends_what_is_shown_here(browser: Any, site: Site) -> None:
    with tab(browser, base(site)) as viewer:
        viewer.log_in(SECRETS["viewer"])
        viewer.wait_for_text("#link", "live")
        other = viewer.page.context.new_page()
        other.goto(f"{base(site)}/ui/events")
        other.click(".who button")
        viewer.page.wait_for_selector("#secret")


def test_a_printed_address_logs_in_once(browser: Any, site: Site) -> None:
    assert "in a browser (arv-balance dashboard logs you in)" in site.words()
    address = site.cli("dashboard").strip()
    for expected in ("/ui/", "/ui/login"):
        with tab(browser, base(site)) as fresh:
            fresh.page.goto(address)
            fresh.wait_for("([path]) => location.pathname === path && !location.hash", expected)
            fresh.page.wait_for_load_state()


def test_what_slips_into_a_page_does_not_run(browser: Any, site: Site) -> None:
    with tab(browser, base(site)) as made:
        made.log_in(SECRETS["viewer"])
        made.page.evaluate(INJECTED)
        made.page.wait_for_timeout(200)
        assert made.page.evaluate("window.ran") is None
        assert sum("Content Security Policy" in text for text in made.complaints) >= 2


def test_a_name_that_points_here_shows_nothing(browser: Any, site: Site) -> None:
    with tab(browser, base(site).replace("127.0.0.1", "evil.example")) as made:
        response = made.page.goto(f"{made.base}/ui/login")
        assert response is not None
        assert response.status == 421
        assert made.page.query_selector("#secret") is None


def test_a_form_of_another_server_on_this_machine_does_nothing(operator: Tab, site: Site) -> None:
    elsewhere = operator.page.context.new_page()
    elsewhere.goto(f"http://127.0.0.1:{site.nodes['api1'].port}/")
    with elsewhere.expect_navigation() as left:
        elsewhere.evaluate(FORGED, f"{operator.base}/ui/nodes/api2/drain")
    assert left.value is not None
    assert left.value.status == 403
    assert "another site" in elsewhere.inner_text("main")
    assert site.states()["api2"] == "healthy"


def test_it_works_without_scripts(browser: Any, site: Site) -> None:
    with tab(browser, base(site), java_script_enabled=False) as plain:
        plain.log_in(SECRETS["operator"])
        assert plain.page.locator("noscript meta, meta[http-equiv=refresh]").count() == 1
        plain.page.click("noscript a")  # stop refreshing
        assert plain.page.locator("meta[http-equiv=refresh]").count() == 0
        plain.page.click("#node-api2 a[data-ask]")
        assert "2 of 3 nodes will serve" in plain.text("#ask")
        plain.page.fill("#reason", "by hand")
        plain.page.click("#ask button[type=submit]")
        assert "by hand" in plain.text(".notice")
        until(lambda: site.states()["api2"] == "drained", 30, "api2 is drained")
        plain.page.click(".notice button")
        until(lambda: site.states()["api2"] == "healthy", 30, "api2 is healthy")


@pytest.mark.parametrize("theme", THEMES)
def test_every_page_is_accessible(browser: Any, site: Site, theme: Any) -> None:
    site.admin("POST", "/v1/nodes/api3/drain", {"reason": "to be seen"})
    with tab(browser, base(site), viewport=DESKTOP, color_scheme=theme) as made:
        made.open("/ui/login")
        assert made.violations() == []
        made.log_in(SECRETS["admin"])
        made.wait_for_text("#link", "live")
        background = made.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (max(map(int, background[4:-1].split(","))) < 80) == (theme == "dark")
        paths = ("/ui/", "/ui/nodes/api3", "/ui/events", "/ui/nodes/api1/weight", "/ui/pause", "/ui/nothing")
        for path in paths:
            made.open(path)
            assert made.violations() == [], path
        assert [text for text in made.complaints if "404" not in text] == []


def test_it_fits_a_phone(browser: Any, site: Site) -> None:
    with tab(browser, base(site), viewport=PHONE, is_mobile=True, has_touch=True) as phone:
        phone.log_in(SECRETS["operator"])
        assert site.ask(path="/arvados/v1/slow?delay=0")[0] == 200
        phone.wait_for_text("#zone-routes", "a-route-with-a-long-name")
        for path in ("/ui/", "/ui/nodes/api1", "/ui/events", "/ui/pause"):
            phone.open(path)
            assert phone.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], path
            assert phone.violations() == [], path
        phone.open()
        phone.page.tap("#node-api1 a[data-ask]")
        phone.page.wait_for_selector("dialog[open]")
        box = phone.page.locator("dialog[open]").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
