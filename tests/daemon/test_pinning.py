"""Tags of registries: when they are asked about, what is remembered, and what a plan says when one has moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.drivers.images import oci
from reconciler.lib.errors import BangerError, ErrorClass
from reconciler.model.artifacts import Image, OciImage, Pull
from reconciler.model.desired import DesiredState
from reconciler.model.status import State
from tests.fakes.host import Host, desired, image, vm

OLD = "sha256:" + "a" * 64
NEW = "sha256:" + "b" * 64
REF = "r.io/a/b:1"


class Tags:
    """A registry of which only tags are asked."""

    def __init__(self) -> None:
        self.means = OLD
        self.asked = 0
        self.down: BangerError | None = None

    def resolve(self, source: OciImage) -> str:
        self.asked += 1
        if self.down:
            raise self.down
        return self.means


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch) -> Tags:
    made = Tags()
    monkeypatch.setattr(oci, "resolve", made.resolve)
    return made


def of_registry(pull: Pull = Pull.MISSING, **fields: Any) -> DesiredState:
    made = Image(name="base", source=OciImage(ref=REF, pull=pull, **fields), kernel="debian")
    return desired(vm("dev", of=made), images=[made])


def test_a_plan_asks_what_is_not_known_and_writes_nothing(host: Host, tags: Tags) -> None:
    plan = host.plan(of_registry())
    assert [step.id for step in plan.steps if "vm/" in step.id] == ["create vm/dev", "start vm/dev"]
    assert "(sha256:aaaaaaaaaaaa)" in next(s.action.describe() for s in plan.steps if s.id == "build image/base")
    assert tags.asked == 1
    assert not host.paths.resolutions.exists() and not host.paths.state.exists()


def test_missing_asks_once_and_a_second_apply_plans_nothing(host: Host, tags: Tags) -> None:
    assert not host.apply(of_registry()).failed
    tags.means = NEW
    host.restart()
    before = host.files()
    assert host.apply(of_registry()).plan.empty
    host.restart()
    assert host.files() == before
    assert tags.asked == 1
    (seen,) = [s for s in host.service.status("env") if s.kind.value == "image"]
    assert seen.state is State.PRESENT


def test_always_asks_and_a_moved_tag_is_told_with_both_digests(host: Host, tags: Tags) -> None:
    wanted = of_registry(Pull.ALWAYS)
    host.apply(wanted)
    assert host.plan(wanted).empty
    tags.means = NEW
    (held,) = host.plan(wanted).held
    assert "base@sha256:aaaaaaaaaaaa" in held.reason and "base@sha256:bbbbbbbbbbbb" in held.reason
    assert "(recreate)" in held.reason
    result = host.apply(wanted, allow_recreate=True)
    assert not result.failed and "trash vm/dev" in [step.id for step in result.plan.steps]
    assert host.plan(wanted).empty
    assert host.running() == {"env/dev"}


def test_a_registry_that_does_not_answer_fails_its_image_and_nothing_else(host: Host, tags: Tags) -> None:
    """I7."""
    tags.down = BangerError("r.io is down", error_class=ErrorClass.RETRYABLE)
    wanted = of_registry()
    debian = image("debian")
    wanted = replace(
        wanted,
        vms={**wanted.vms, "other": vm("other", of=debian)},
        images={**wanted.images, "debian": debian},
    )
    result = host.apply(wanted)
    assert [outcome.object for outcome in result.failed] == ["image/base"]
    assert host.running() == {"env/other"}
    tags.down = None
    assert not host.apply(wanted).failed
    assert host.running() == {"env/other", "env/dev"}


def test_a_vm_goes_on_while_its_registry_is_away(host: Host, tags: Tags) -> None:
    wanted = of_registry(Pull.ALWAYS)
    host.apply(wanted)
    tags.down = BangerError("r.io is down", error_class=ErrorClass.RETRYABLE)
    result = host.apply(wanted)
    assert [outcome.object for outcome in result.failed] == ["image/base"]
    assert host.running() == {"env/dev"}


def test_never_is_an_error_of_its_image_while_nothing_is_known(host: Host, tags: Tags) -> None:
    result = host.apply(of_registry(Pull.NEVER))
    (failed,) = result.failed
    assert failed.error is not None and "`pull: never` does not allow" in failed.error.cause
    assert tags.asked == 0


def test_what_the_file_pins_is_not_asked_about(host: Host, tags: Tags) -> None:
    host.apply(of_registry(Pull.ALWAYS, digest=NEW))
    assert tags.asked == 0
    assert host.paths.image(OciImage(digest=NEW).id).root.is_dir()
    assert not host.paths.resolutions.exists()


def test_an_answer_that_is_damaged_is_asked_for_again(host: Host, tags: Tags) -> None:
    host.apply(of_registry())
    (file,) = host.paths.resolutions.iterdir()
    for text in ("", "{", "[]", file.read_text().replace("aaaa", "zzzz"), file.read_text().replace(REF, "r.io/x:1")):
        file.write_text(text)
        assert host.plan(of_registry()).empty
    assert tags.asked == 6
