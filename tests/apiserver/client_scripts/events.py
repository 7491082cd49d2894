"""Runs in the official client's environment: `events.subscribe` over wss, and by polling."""

import queue
import sys

import arvados
import arvados.events

api = arvados.api("v1", cache=False)
mode = sys.argv[1]
if mode == "poll":
    api._rootDesc.pop("websocketUrl", None)
heard = queue.Queue()
client = arvados.events.subscribe(api, [["event_type", "in", ["create"]]], heard.put, poll_fallback=1)
made, event = set(), {}
# A polling client begins at the last row that it finds, so what is made before its first look is not heard.
while event.get("object_uuid") not in made:
    body = {"group": {"group_class": "project", "name": f"{len(made)} by {mode}"}}
    made.add(api.groups().create(body=body).execute()["uuid"])
    try:
        event = heard.get(timeout=2)
    except queue.Empty:
        if len(made) > 10:
            raise
client.close()
sys.stdout.write(type(client).__name__)
