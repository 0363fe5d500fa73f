"""Which rules of ours the host's packet filter has, as the root helper reads them. Writes nothing."""

from __future__ import annotations

from reconciler.drivers.network.refusals import explained
from reconciler.helper.client import HelperClient
from reconciler.model.observed_links import Filter, ObservedRules


def read_filter(client: HelperClient, install: str) -> Filter:
    """The rules of one installation, and what of others stands in their way.

    Raises BangerError (retryable, mostly) if they could not be read: that is unknown, not absent.
    """
    with explained("rules of the networks"):
        shown = client.show_rules(install=install)
    return Filter(
        generation=shown.generation,
        rules={key: ObservedRules(digest=digest, intact=intact) for key, (digest, intact) in shown.rules.items()},
        blockers=tuple(shown.blockers),
    )
