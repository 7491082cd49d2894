"""Takes the pictures of docs/dashboard.md: a balancer with traffic, a drained node, both themes.

Run it as `PYTHONPATH=. python tools/dashboard_pictures.py`.
"""

import sys
from pathlib import Path

from tests.support.browser import chromium, tab
from tests.support.site import Site, free_port

IMAGES = Path("docs/images")
SIZE = {"width": 1200, "height": 646}
FILLED_MS = 62_000  # the charts show a minute


def main() -> None:
    """Write them."""
    IMAGES.mkdir(exist_ok=True)
    site = Site(
        nodes=4,
        workers=2,
        cluster="xarv1",
        admin={"listen": f"127.0.0.1:{free_port()}"},
        designated={"dns": {"order": ["api1", "api2"]}},
    )
    site.extra["nodes"] = {
        name: {"url": f"http://127.0.0.1:{node.port}", "capacity": 64} for name, node in site.nodes.items()
    }
    try:
        site.start()
        with site.load("--clients", "24"), chromium() as browser:
            site.admin("POST", "/v1/nodes/api3/drain", {"reason": "disk swap", "for": "2h"})
            base = f"http://{site.config()['admin']['listen']}"
            for theme in ("light", "dark"):
                with tab(browser, base, viewport=SIZE, color_scheme=theme) as shown:
                    shown.page.goto(site.cli("dashboard").strip())
                    shown.wait_for_text("#link", "live")
                    shown.page.wait_for_timeout(FILLED_MS if theme == "light" else 3000)
                    shown.page.screenshot(path=IMAGES / f"dashboard-{theme}.png")
    finally:
        site.close()


if __name__ == "__main__":
    sys.exit(main())
