"""What runs in every guest besides what its image brings: the agent, an ssh server where there is none, the entrypoint.

Under systemd they are units, which lie in /run like everything of ours. Any other init knows nothing of them: there
`supervise` keeps them running, beside that init or as the init itself (image.sh says which).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources

from reconciler.drivers.guest.entrypoint import Entrypoint

# The name of Debian's own unit, which this one stands in for: the port takes one agent only, and would else be fought
# over. After the ssh server, so that nobody waits longer for that.
AGENT_UNIT = "qemu-guest-agent.service"
_AGENT = """\
[Unit]
Description=Agent by which banger reaches the guest
After=ssh.service sshd.service

[Service]
ExecStart=/run/banger/agent
Restart=always
RestartSec=1
KillMode=process
"""

SSHD_UNIT = "banger-sshd.service"
_SSHD = """\
[Unit]
Description=Ssh server for an image that has none
ConditionPathExists=/run/banger/lacks-sshd

[Service]
ExecStart=/run/banger/sshd
Restart=always
RestartSec=1
KillMode=process
"""

ENTRYPOINT_UNIT = "banger-entrypoint.service"
_ENTRYPOINT = """\
[Unit]
Description=Entrypoint of the image
After=network.target
ConditionPathExists=/run/banger/image/service

[Service]
ExecStart=/run/banger/service
Restart=on-failure
RestartSec=2
KillSignal={signal}
TimeoutStopSec=10
StandardOutput=journal+console
"""

# The programs on it run to the last, so that the unmount of a shutdown would fail, aloud. It is read-only.
_TOOLS_STAY = "[Unit]\nDefaultDependencies=no\n"

_SCRIPTS = ("supervise", "agent", "sshd", "session", "service")


def files(entrypoint: Entrypoint) -> Mapping[str, tuple[str, int]]:
    """Path below /run, to content and mode."""
    found = {f"banger/{name}": (_script(name), 0o755) for name in _SCRIPTS}
    # The path is the name of the event in acpid's own table for KEY_POWER.
    found["banger/power/PWRF/00000080"] = (_script("power"), 0o755)
    found[f"systemd/system/{AGENT_UNIT}"] = (_AGENT, 0o644)
    found[f"systemd/system/{SSHD_UNIT}"] = (_SSHD, 0o644)
    found["systemd/system/run-banger-tools.mount.d/banger.conf"] = (_TOOLS_STAY, 0o644)
    if entrypoint.argv:
        signal = entrypoint.stop_signal
        unit = _ENTRYPOINT.format(signal=signal if signal.isdecimal() else f"SIG{signal}")
        found[f"systemd/system/{ENTRYPOINT_UNIT}"] = (unit, 0o644)
    return {**found, **entrypoint.files()}


def links(entrypoint: Entrypoint) -> Mapping[str, str]:
    """Path below /run, to the target of a symbolic link."""
    units = [AGENT_UNIT, SSHD_UNIT, *([ENTRYPOINT_UNIT] if entrypoint.argv else [])]
    return {f"systemd/system/multi-user.target.wants/{unit}": f"../{unit}" for unit in units}


def _script(name: str) -> str:
    return resources.files(__package__).joinpath("scripts", f"{name}.sh").read_text()
