"""What the record of switched interfaces is read as."""

from __future__ import annotations

from reconciler.helper import forwarding

RECORD = """
	set v4 {
		type ifname
	}

	set v6 {
		type ifname
		elements = { "all", "default" }
	}
"""


def test_an_empty_set_is_not_taken_for_the_next_one() -> None:
    """Else `all` would be an IPv4 interface, and the host a router."""
    assert forwarding._recorded(RECORD, "v4") == set()
    assert forwarding._recorded(RECORD, "v6") == {"all", "default"}
