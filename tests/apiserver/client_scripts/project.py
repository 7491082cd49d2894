"""Makes a project with a collection of one file, and an empty project; prints their uuids."""

import pathlib
import sys

import arvados
import arvados.collection

api = arvados.api("v1", cache=False)
uuids = [
    api.groups().create(body={"group": {"group_class": "project", "name": name}}).execute()["uuid"]
    for name in ("source", "target")
]
made = arvados.collection.Collection(api_client=api)
with made.open("data.txt", "w") as sink:
    sink.write(pathlib.Path(sys.argv[1]).read_text())
made.save_new(name="data", owner_uuid=uuids[0])
sys.stdout.write(" ".join([*uuids, made.manifest_locator()]))
