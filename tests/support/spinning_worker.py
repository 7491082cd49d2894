"""A worker whose poller never drops an interest: the negative control of tests that a worker does not spin.

python -P -m tests.support.spinning_worker
"""

import json
import os
import select
import sys

from balancer.worker import run


class Sticky:
    """An epoll that ignores changes that only take something away."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self.poll, self.close, self.unregister = self._epoll.poll, self._epoll.close, self._epoll.unregister

    def register(self, fd: int, mask: int, /) -> None:
        """See Poller."""
        self._masks[fd] = mask
        self._epoll.register(fd, mask)

    def modify(self, fd: int, mask: int, /) -> None:
        """See Poller."""
        if mask & ~self._masks[fd]:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)


if __name__ == "__main__":
    sys.exit(run(json.loads(os.environ["ARV_BALANCE_CHILD"]), Sticky()))
