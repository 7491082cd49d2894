"""Writes two small files, puts their blocks into one, and has the collection read them from there."""

import json
import sys

import arvados
import arvados.collection
from arvados.keep import KeepClient

api = arvados.api("v1", cache=False)
written = arvados.collection.Collection(api_client=api)
texts = {"a.txt": "small", "b/c.txt": "blocks"}
for name, text in texts.items():
    with written.open(name, "w") as sink:
        sink.write(text)
    written.manifest_text()  # flushes: each file has a block of its own
written.save_new(name="repacked")
uuid = written.manifest_locator()
before = api.collections().get(uuid=uuid).execute()["manifest_text"]
blocks = {word for word in before.split() if "+" in word}

large = KeepClient(api_client=api).put("".join(texts.values()).encode())
moves, offset = {}, 0
for text in texts.values():
    small = next(block for block in blocks if block.split("+")[1] == str(len(text)))
    moves[f"{small} 0 {len(text)}"] = f"{large} {offset} {len(text)}"
    offset += len(text)
after = api.collections().update(uuid=uuid, body={"collection": {}}, replace_segments=moves).execute()
# Another writer with an older view of it: nothing of the kind is there any more.
again = api.collections().update(uuid=uuid, body={"collection": {}}, replace_segments=moves).execute()

read = arvados.collection.CollectionReader(uuid, api_client=api)
found = {name: read.open(name).read() for name in texts}
count = len({word for word in after["manifest_text"].split() if "+" in word})
unchanged = again["portable_data_hash"] == after["portable_data_hash"]
sys.stdout.write(json.dumps({"files": found, "blocks": [len(blocks), count], "repeated": unchanged}))
