"""What is in the trash goes for good when somebody says so, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.daemon import discarding
from reconciler.lib.atomic import corpses
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.inuse import in_use
from tests.fakes.host import Host, desired, vm


@pytest.fixture
def entries(host: Host) -> list[str]:
    """Two VMs in the trash."""
    host.apply(desired(vm("a"), vm("b")))
    host.apply(desired())
    return sorted(entry.entry for entry in host.service.trash())


def test_one_goes_and_the_other_can_be_restored(host: Host, entries: list[str]) -> None:
    first, second = entries
    assert host.service.discard(first) >= 0
    assert [entry.entry for entry in host.service.trash()] == [second]
    assert not host.paths.trash_entry(first).exists() and corpses(host.paths.trash) == []
    with pytest.raises(UsageError, match="no entry"):
        host.service.discard(first)


@pytest.mark.parametrize("entry", ["", "..", "../vms", "nope", ".staging"])
def test_what_is_no_entry_touches_nothing(host: Host, entries: list[str], entry: str) -> None:
    before = sorted(host.paths.state.rglob("*"))
    with pytest.raises(UsageError, match="no entry"):
        host.service.discard(entry)
    assert sorted(host.paths.state.rglob("*")) == before


def test_what_is_being_used_stays(host: Host, entries: list[str]) -> None:
    with in_use(host.paths.trash_entry(entries[0])), pytest.raises(BangerError, match="stays in the trash"):
        host.service.discard(entries[0])
    assert len(host.service.trash()) == 2


def test_killed_in_the_middle_it_is_gone_and_swept(
    host: Host, entries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, **more: object) -> None:
        raise KeyboardInterrupt

    remove: Callable[..., None] = discarding.evict.remove_tree
    monkeypatch.setattr(discarding.evict, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        host.service.discard(entries[0])
    monkeypatch.setattr(discarding.evict, "remove_tree", remove)
    assert [entry.entry for entry in host.service.trash()] == entries[1:]
    host.apply(desired())
    assert corpses(host.paths.trash) == []
