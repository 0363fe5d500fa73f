"""Identity is a hash of the normalised inputs. Pure."""

from __future__ import annotations

import hashlib
import json

ENVIRONMENT_NAME = r"[a-z][a-z0-9-]{0,30}"
OBJECT_NAME = r"[a-z][a-z0-9-]{0,30}"


def identity(kind: str, inputs: object) -> str:
    """16 hex digits that change exactly when the JSON of `inputs` does; key order does not count."""
    text = json.dumps([kind, inputs], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mac_address(install: str, environment: str, vm: str) -> str:
    """A unicast, locally administered MAC (IEEE 802, second-least bit of the first octet), stable for the VM's name."""
    digest = hashlib.sha256(f"mac\0{install}\0{environment}\0{vm}".encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x02, *digest[:5]))


def host_alias(vm_id: str) -> str:
    """The name under which a VM's ssh host key is pinned: of this VM, not of an address that another may get."""
    return f"banger-{vm_id}"
