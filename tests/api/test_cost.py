"""What is not used is not loaded, and who is not asked does not wake up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from reconciler.api.server import Server
from tests.api.conftest import request

_LOADED = "import sys; print(*sorted(sys.modules))"


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\n{_LOADED}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_asking_a_controller_for_vms_loads_no_web_server_and_no_plans(server: Server, path: Path) -> None:
    modules = loaded(
        f"from pathlib import Path; from reconciler.api.client import RemoteService\n"
        f"RemoteService(Path({str(path)!r})).vms(None)"
    )
    assert "reconciler.api.client" in modules
    unwanted = {
        "starlette",
        "uvicorn",
        "anyio",
        "asyncio",
        "jsonschema",
        "reconciler.model.plan",
        "reconciler.model.desired",
    }
    assert not modules & unwanted


def test_the_web_server_loads_with_the_first_server() -> None:
    modules = loaded("import reconciler.api.server, reconciler.api.metrics")
    assert not modules & {"starlette", "uvicorn", "anyio"}


def test_an_idle_server_sleeps(server: Server, path: Path) -> None:
    """No timer is armed on its loop, so nothing but a request wakes it."""
    request(path, "GET", "/v1/environments", Connection="close")
    loop = server._loop
    assert loop is not None
    timers = [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
    assert timers == []
