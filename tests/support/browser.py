"""A headless Chromium, and what it noticed about the pages that it showed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.support.programs import need

# Chromium's sandbox wants user namespaces, which root in a container has not got; pages are our own.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP evil.example 127.0.0.1")
PATIENCE_MS = 30_000


@dataclass
class Tab:
    """A page with its own cookies. `complaints`: scripts that failed and everything that the policy kept out."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/ui/") -> None:
        self.page.goto(self.base + path)

    def log_in(self, secret: str) -> None:
        self.open("/ui/login")
        self.page.fill("#secret", secret)
        self.page.click("button[type=submit]")
        self.page.wait_for_selector("#zone-nodes")

    def text(self, selector: str) -> str:
        return " ".join(self.page.inner_text(selector).split())

    def wait_for(self, expression: str, *arguments: Any) -> None:
        """Wait until an expression of the page is true."""
        self.page.wait_for_function(expression, arg=list(arguments), timeout=PATIENCE_MS)

    def wait_for_text(self, selector: str, text: str) -> None:
        self.wait_for(
            "([selector, text]) => document.querySelector(selector)?.innerText.includes(text)", selector, text
        )

    def violations(self) -> list[str]:
        """What axe-core has to say against the page as it is now."""
        found = Axe().run(self.page).response["violations"]
        return [f"{item['id']}: {node['html'][:200]}" for item in found for node in item["nodes"]]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=need("chromium"), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Browser, base: str, **options: Any) -> Iterator[Tab]:
    """Give a page of its own; `options` are those of Playwright's `new_context`."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    made = Tab(context.new_page(), base)
    made.page.on("console", made._heard)
    made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
    try:
        yield made
    finally:
        context.close()
