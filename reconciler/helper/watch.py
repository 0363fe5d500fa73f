"""Waits for a change of the host's nft rules, without the lock and without polling."""

from __future__ import annotations

import select

from reconciler.helper.netlink import Rules
from reconciler.helper.protocol import Done

SECONDS = 30.0


def watch(generation: int, connection: int) -> Done:
    """Answers once the generation is not the given one, or after SECONDS.

    Also when anything happens on `connection`, the peer's descriptor: it hung up, or the helper is stopping.
    """
    # In this order: what comes after the reading is announced.
    with Rules(watch=True) as news, Rules() as kernel:
        poll = select.poll()
        for fd in (news.socket.fileno(), connection):
            poll.register(fd, select.POLLIN | select.POLLRDHUP)
        found = kernel.generation()
        if found == generation:
            poll.poll(SECONDS * 1000)
            found = kernel.generation()
    return Done("", found != generation, generation=found)
