"""Single images of the cache: who uses them, and what may go."""

from __future__ import annotations

import json

import pytest

from reconciler.lib.errors import UsageError
from reconciler.lib.inuse import in_use
from reconciler.model.artifacts import Image
from reconciler.model.desired import DesiredState
from tests.fakes.host import Host, desired, image, vm

USED, SPARE = image("used"), image("spare", "git")
WANTED = desired(vm("dev", of=USED), images=[USED, SPARE])


def ids(host: Host) -> list[str]:
    return [found.id for found in host.service.images()]


def without_vms() -> DesiredState:
    return desired(images=[SPARE])


def test_nothing_is_there_at_first_and_looking_makes_nothing(host: Host) -> None:
    assert host.service.images() == []
    assert not host.paths.state.exists()


def test_images_are_listed_with_their_names_and_users(host: Host) -> None:
    host.apply(WANTED)
    found = {item.id: item for item in host.service.images()}
    assert found[USED.id].names == ("env/used",) and found[USED.id].used_by == ("env/dev",)
    assert found[SPARE.id].names == ("env/spare",) and found[SPARE.id].used_by == ()
    assert found[SPARE.id].source == "Debian bookworm with git"


def test_what_a_vm_is_made_of_stays_also_from_the_trash(host: Host) -> None:
    host.apply(WANTED)
    with pytest.raises(UsageError, match="env/dev is made of it"):
        host.service.remove_image(USED.id)
    host.apply(without_vms())
    with pytest.raises(UsageError, match=r"trash/.* is made of it"):
        host.service.remove_image(USED.id)
    assert USED.id in ids(host)


def test_what_nothing_is_made_of_goes_and_is_made_again_by_an_apply(host: Host) -> None:
    host.apply(WANTED)
    assert host.service.remove_image(SPARE.id) > 0
    assert ids(host) == [USED.id]
    assert [step.id for step in host.plan(WANTED).steps] == ["build image/spare"]
    host.apply(WANTED)
    assert sorted(ids(host)) == sorted([USED.id, SPARE.id])


def test_what_is_pinned_or_being_used_stays(host: Host) -> None:
    host.apply(WANTED)
    assert host.service.pin_image(SPARE.id, True) and not host.service.pin_image(SPARE.id, True)
    with pytest.raises(UsageError, match="is pinned"):
        host.service.remove_image(SPARE.id)
    assert next(item for item in host.service.images() if item.id == SPARE.id).pinned
    assert host.service.pin_image(SPARE.id, False) and not host.service.pin_image(SPARE.id, False)
    with in_use(host.paths.image(SPARE.id).root), pytest.raises(UsageError, match="somebody works with it"):
        host.service.remove_image(SPARE.id)
    assert SPARE.id in ids(host)


def test_an_unknown_image_is_told(host: Host) -> None:
    for ask in (host.service.remove_image, lambda identity: host.service.pin_image(identity, True)):
        with pytest.raises(UsageError, match="there is no image"):
            ask("0" * 16)


def test_one_whose_manifest_is_damaged_is_listed_and_can_go(host: Host) -> None:
    host.apply(WANTED)
    for text in ("", "[1]", "{"):
        host.paths.image(SPARE.id).manifest.write_text(text)
        assert SPARE.id in ids(host)
    host.service.remove_image(SPARE.id)
    assert SPARE.id not in ids(host)


def test_what_no_file_names_says_itself_what_it_was_made_of(host: Host) -> None:
    host.apply(desired(images=[SPARE]))
    host.paths.image(SPARE.id).manifest.write_text(json.dumps({"source": {"tag": "oci", "ref": "r.io/a:1"}}))
    host.apply(desired(images=[Image(name="x", source=USED.source, kernel="debian")]))
    assert {item.id: item.source for item in host.service.images()}[SPARE.id] == "r.io/a:1"
