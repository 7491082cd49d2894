"""Runs in the environment of the official Python client, unmodified: what a user's program does, over and over.

    python official_script.py

Finds the cluster by ARVADOS_API_HOST and ARVADOS_API_TOKEN. Prints one JSON object a round: calls so far, and what was
wrong with the last one, "" when nothing was.
"""

import itertools
import json
import sys
import time
from typing import Any

import arvados
import arvados.errors
import arvados.util

EVERY_S = 1.0


def one_round(api: Any, number: int) -> int:
    """Look who we are, make a project, find it again, list by keys, and delete it; return how many calls that were."""
    api.users().current().execute()
    name = f"official client {number}"
    made = api.groups().create(body={"group": {"group_class": "project", "name": name}}).execute()
    filters = [["uuid", "=", made["uuid"]]]
    pages = arvados.util.keyset_list_all(api.groups().list, order_key="created_at", filters=filters)
    if [item["uuid"] for item in pages] != [made["uuid"]]:
        raise ValueError(f"{made['uuid']} is not listed")
    api.groups().delete(uuid=made["uuid"]).execute()
    return 4


def main() -> None:
    """Work until told to stop."""
    api = arvados.api("v1", cache=False)
    calls = 0
    for number in itertools.count(1):
        problem = ""
        try:
            calls += one_round(api, number)
        except (arvados.errors.ApiError, ValueError, OSError) as exc:
            problem = f"{type(exc).__name__}: {exc}"
        sys.stdout.write(json.dumps({"calls": calls, "problem": problem}) + "\n")
        sys.stdout.flush()
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
