"""A node that answers as an unmodified Arvados controller does, and is spoilt at run time: `PUT /_state` with JSON.

python arvados_like_node.py --port 9001 [--cert FILE --key FILE]
"""

import argparse
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GENERATED_AT = time.time()  # each node its own, as the original

HEALTHY: dict[str, Any] = {
    "token": "managementtokenmanagementtoken1234",
    "sick": "",
    "discovery": {},
    "exported": {},
    "metrics": "",
    "limit": 64,
    "echoes_id": True,
    "hangs": False,
    "session": "",  # "": stateless; else the secret by which it knows its own cookies
    "idle_s": 30.0,
}
DISCOVERY: dict[str, Any] = {
    "rootUrl": "https://api.test.example/",
    "baseUrl": "https://api.test.example/arvados/v1/",
    "websocketUrl": "wss://ws.test.example/websocket",
    "packageVersion": "3.1.0",
    "revision": "20250402",
    "resources": {"collections": {"methods": {"create": {}}}, "nodes": {"methods": {"ping": {}, "create": {}}}},
}
state = dict(HEALTHY)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write

    def handle_one_request(self) -> None:
        self.connection.settimeout(state["idle_s"])
        super().handle_one_request()

    def do_PUT(self) -> None:
        state.clear()
        state.update({**HEALTHY, **json.loads(self.rfile.read(int(self.headers["Content-Length"])))})
        self._send(200, {})

    def do_GET(self) -> None:
        if state["hangs"]:
            threading.Event().wait(60)
        path = self.path.partition("?")[0]
        if path in ("/_health/ping", "/metrics") and state["token"]:
            given = self.headers.get("Authorization")
            if given != f"Bearer {state['token']}":
                self._send(403 if given else 401, "authorization error")
                return
        match path:
            case "/_health/ping" if not state["token"]:
                self._send(404, "disabled")
            case "/_health/ping":
                sick = {"health": "ERROR", "error": state["sick"]}
                self._send(200, sick if state["sick"] else {"health": "OK"})
            case "/discovery/v1/apis/arvados/v1/rest":
                self._send(200, {**DISCOVERY, "generatedAt": GENERATED_AT, **state["discovery"]})
            case "/arvados/v1/config":
                self._send(200, {"ClusterID": "zzzzz", **state["exported"]})
            case "/metrics":
                self._send(200, f"arvados_max_concurrent_requests {state['limit']}\n{state['metrics']}")
            case "/login":
                self._login()
            case _:
                self._send(401, {"errors": ["Not logged in"]})

    def _login(self) -> None:
        known = f"_session={state['session']}" in self.headers.get("Cookie", "")
        fields = {"Location": "https://idp.example/"}
        if state["session"] and not known:
            fields["Set-Cookie"] = f"_session={state['session']}; path=/"
        self._send(302, "", fields)

    def _send(self, status: int, content: object, fields: dict[str, str] | None = None) -> None:
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)  # with a Date
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        if state["echoes_id"] and (given := self.headers.get("X-Request-Id")):
            self.send_header("X-Request-Id", given)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
