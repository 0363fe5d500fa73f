"""Where things live, for root, a user, a service, and below one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.lib import runtime as module
from reconciler.lib.errors import BangerError
from reconciler.lib.paths import Paths

SERVICE = {
    "STATE_DIRECTORY": "/var/lib/banger",
    "CACHE_DIRECTORY": "/var/cache/banger",
    "RUNTIME_DIRECTORY": "/run/banger/controller",
    "CONFIGURATION_DIRECTORY": "/etc/banger:/etc/banger/banger.d",
}


def roots(env: dict[str, str], uid: int) -> list[str]:
    found = Paths.discover(env, uid)
    return [str(path) for path in (found.state, found.cache, found.runtime, found.config)]


def test_a_service_has_what_systemd_gives_it() -> None:
    expected = ["/var/lib/banger", "/var/cache/banger", "/run/banger/controller", "/etc/banger"]
    assert roots({"HOME": "/var/lib/banger", **SERVICE}, 994) == expected
    assert roots(SERVICE, 0) == expected


def test_what_systemd_does_not_give_is_as_without_it() -> None:
    env = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1000", "CONFIGURATION_DIRECTORY": "/home/u/.config/banger"}
    assert roots(env, 1000) == [
        "/home/u/.local/state/banger",
        "/home/u/.cache/banger",
        "/run/user/1000/banger",
        "/home/u/.config/banger",
    ]


def test_one_folder_goes_before_everything() -> None:
    assert roots({"BANGER_HOME": "/b", **SERVICE}, 994)[0] == "/b/state"


def test_a_relative_folder_is_ignored() -> None:
    assert roots({"HOME": "/home/u", "STATE_DIRECTORY": "banger"}, 1000)[0] == "/home/u/.local/state/banger"


def test_root_asks_the_system_service_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for uid, runtime in ((None, "/run/banger"), (0, "/run/banger"), (994, "/run/banger/controller")):
        monkeypatch.setattr(module, "owner", lambda path, uid=uid: uid)
        assert roots({}, 0)[2] == runtime


def test_root_does_not_work_in_the_services_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(module, "owner", lambda path: 994)
    with pytest.raises(BangerError, match="belongs to the service"):
        Paths.discover({}, 0).require_own()
    # A folder that was named on purpose is the user's own affair.
    Paths.discover({"BANGER_HOME": "/b"}, 0).require_own()
    monkeypatch.setattr(module, "owner", lambda path: 0)
    Paths.discover({}, 0).require_own()


def test_the_service_itself_works_in_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 994)
    monkeypatch.setattr(module, "owner", lambda path: 994)
    assert Paths.discover(SERVICE, 994).runtime == Path("/run/banger/controller")
    Paths.discover(SERVICE, 994).require_own()
