"""What clients may call, by resource: it is there with its parameters, or there is a reason why not."""

import pytest

from apiserver.operation import CREATE, DELETE, GET, LIST, UPDATE, Operation
from apiserver.registry import Registry
from apiserver.schema import UNSUPPORTED

STANDARD = {"get": GET, "list": LIST, "create": CREATE, "update": UPDATE, "delete": DELETE}
# Standard methods are always there; `name+parameter` has more parameters than usual, `name METHOD path` is another one.
CALLS = """
api_client_authorizations: current GET current; create_system_auth+scopes POST create_system_auth
authorized_keys:
collections: get+include_trash; list+include_trash+include_old_versions; create+replace_files+replace_segments;
 update+replace_files+replace_segments; provenance GET {uuid}/provenance; used_by GET {uuid}/used_by;
 trash POST {uuid}/trash; untrash POST {uuid}/untrash
container_requests: get+include_trash; list+include_trash; container_status GET {uuid}/container_status
containers: auth GET {uuid}/auth; lock POST {uuid}/lock; unlock POST {uuid}/unlock; current GET current;
 update_priority POST {uuid}/update_priority; secret_mounts GET {uuid}/secret_mounts
groups: get+include_trash; list+include_trash; create+async; update+async; trash POST {uuid}/trash;
 untrash POST {uuid}/untrash; shared+filters+include+include_trash+limit+offset+order+select GET shared;
 contents+uuid+recursive+include+include_old_versions+include_trash+exclude_home_project+filters+count GET contents
keep_services: accessible GET accessible
links:
logs:
nodes: create+assign_slot; update+assign_slot; ping+ping_secret POST {uuid}/ping
users: update+bypass_federation; current GET current; system GET system; activate POST {uuid}/activate;
 setup+uuid+user+vm_uuid+repo_name+send_notification_email POST setup; unsetup POST {uuid}/unsetup;
 merge+new_owner_uuid+new_user_token+new_user_uuid+old_user_uuid+redirect_to_new_user POST merge;
 authenticate+username+password POST authenticate
virtual_machines: logins GET {uuid}/logins; get_all_logins GET get_all_logins
workflows:
"""
REFUSED = (
    "api_clients", "credentials", "humans", "job_tasks", "jobs", "keep_disks", "pipeline_instances",
    "pipeline_templates", "repositories", "specimens", "traits", "user_agreements",
)  # fmt: skip
OURS = {(one.resource, one.name): one for one in Registry().operations()}
ASKED = [
    (line.split(":")[0], call.split())
    for line in CALLS.replace("\n ", " ").strip().splitlines()
    for call in [*STANDARD, *filter(str.strip, line.split(":", 1)[1].split(";"))]
]


@pytest.mark.parametrize(("resource", "call"), ASKED, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_method_that_clients_call_is_there_with_its_parameters(resource: str, call: list[str]) -> None:
    name, *parameters = call[0].split("+")
    found: Operation = OURS[resource, name]
    wanted = {*parameters, *(one.name for one in STANDARD.get(name, ()))}
    assert wanted <= {one.name for one in found.parameters}
    if len(call) == 3:
        assert (found.method, found.path) == (call[1], f"{resource}/{call[2]}")


def test_what_is_not_there_has_a_reason() -> None:
    assert set(UNSUPPORTED) == set(REFUSED)
    assert not {resource for resource, _ in OURS} & set(UNSUPPORTED)
