"""Prints kind and name of what is in a project."""

import json
import sys

import arvados

items = arvados.api("v1", cache=False).groups().contents(uuid=sys.argv[1]).execute()["items"]
sys.stdout.write(json.dumps(sorted(f"{item['kind']} {item['name']}" for item in items)))
