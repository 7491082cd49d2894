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
made = api.groups().create(body={"group": {"group_class": "project", "name": f"by {mode}"}}).execute()
while True:
    event = heard.get(timeout=20)
    if event.get("object_uuid") == made["uuid"]:
        break
client.close()
sys.stdout.write(type(client).__name__)
