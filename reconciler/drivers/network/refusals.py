"""The helper's answers in words that a user of banger can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.helper.client import HelperLostError
from reconciler.helper.protocol import Code, Refusal
from reconciler.lib.errors import BangerError, ErrorClass

_HINTS = {
    Code.CIDR_TAKEN: "choose another cidr for the network; `ip route show table all` and `ip address` show what is taken",
    Code.BAD_CIDR: "write a private network such as 172.30.7.0/24",
    Code.FOREIGN_LINK: "banger never takes over what it did not make; look with `ip -d link show` and delete or rename it",
    Code.FOREIGN_PORT: "take the foreign port off the bridge first: `ip link set PORT nomaster`",
    Code.NO_BRIDGE: "the network's bridge is made first; it follows in the next pass",
    Code.IN_USE: "stop the program that has the tap open",
    Code.QUOTA: "delete environments that are no longer used",
    Code.BAD_VERSION: "install the helper of this banger version and run `systemctl restart banger-helper.service`",
    Code.UNKNOWN_OPERATION: "install the helper of this banger version and run `systemctl restart banger-helper.service`",
}


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns what a call to the helper raises into a BangerError; `what` says what was to be done."""
    try:
        yield
    except Refusal as refusal:
        raise BangerError(
            f"{what}: {refusal.message} ({refusal.code})",
            hint=_HINTS.get(refusal.code),
            error_class=ErrorClass.RETRYABLE if refusal.code.transient else ErrorClass.TERMINAL,
        ) from None
    except HelperLostError as lost:
        raise BangerError(
            f"{what}: {lost}",
            hint="`journalctl -u banger-helper.service`, or the helper.log in the state directory, tells why",
            error_class=ErrorClass.RETRYABLE,
        ) from None
