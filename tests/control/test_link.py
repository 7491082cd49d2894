"""Messages between processes on the event loop: whole, in order, with their descriptors, and cut cleanly."""

import asyncio
import os
import socket

import pytest

from balancer.control.link import Link, close_all
from balancer.errors import WireError


async def test_messages_and_descriptors_arrive_in_order_under_back_pressure() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    async with Link(ours) as sender, Link(theirs) as receiver, asyncio.TaskGroup() as tasks:

        async def send() -> None:
            for number in range(50):
                fd = os.memfd_create(str(number))
                os.pwrite(fd, str(number).encode(), 0)
                await sender.send({"type": "test", "number": number, "filling": "x" * 5000}, (fd,))
                os.close(fd)

        tasks.create_task(send())
        number = 0
        async for message, fds in receiver.messages():
            assert message["number"] == number
            assert os.pread(fds[0], 10, 0).decode() == str(number)
            close_all(fds)
            number += 1
            if number == 50:
                break


async def test_a_send_that_was_given_up_half_way_ends_the_connection() -> None:
    """Its descriptors are closed by then: what followed would carry others under their numbers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with Link(ours) as sender, Link(theirs):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sender.send({"type": "big", "filling": "x" * (4 << 20)})
        with pytest.raises(WireError):
            await sender.send({"type": "next"})


async def test_nobody_there_is_an_error_in_time() -> None:
    with pytest.raises(WireError):
        await Link.connect("/nowhere/at/all.sock", deadline_s=0.5)


async def test_the_end_of_the_other_side_ends_the_messages() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with Link(ours) as receiver:
        theirs.close()
        with pytest.raises(WireError):
            await anext(receiver.messages())
