"""All resources of the API, found by name or by the type in a uuid."""

from collections.abc import Iterator

from apiserver.controller import Controller
from apiserver.login import Logins
from apiserver.operation import Operation
from apiserver.resources.accounts import Accounts
from apiserver.resources.collections import Collections
from apiserver.resources.containers import Containers
from apiserver.resources.contents import Contents
from apiserver.resources.groups import Groups
from apiserver.resources.links import Links
from apiserver.resources.logs import Logs
from apiserver.resources.nodes import Nodes
from apiserver.resources.requests import ContainerRequests
from apiserver.resources.simple import (
    AuthorizedKeys,
    ComputedPermissions,
    KeepServices,
    VirtualMachines,
    Workflows,
)  # fmt: skip
from apiserver.resources.system import System
from apiserver.resources.tokens import Tokens
from apiserver.resources.users import Users


class Registry:
    """The controllers of one node."""

    def __init__(self) -> None:
        self._controllers: tuple[Controller, ...] = (
            Tokens(), AuthorizedKeys(), Collections(), ComputedPermissions(), ContainerRequests(), Containers(),
            Groups(), KeepServices(), Links(),
            Logs(), Nodes(), Users(), VirtualMachines(), Workflows(),
        )  # fmt: skip
        self._by_infix = {one.resource.infix: one for one in self._controllers if one.resource.infix}

    def of_infix(self, infix: str) -> Controller | None:
        """Return who reads objects with that uuid type."""
        return self._by_infix.get(infix)

    def operations(self) -> Iterator[Operation]:
        """Return the operations of all resources."""
        for controller in self._controllers:
            yield from controller.operations()
        yield from Contents().operations()
        yield from Accounts().operations()
        yield Logins().authenticate
        yield from System().operations()

    def wrappers(self) -> frozenset[str]:
        """Return the keys under which bodies may hold attributes."""
        return frozenset(one.resource.singular for one in self._controllers)
