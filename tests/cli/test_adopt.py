"""What `vm adopt` prints declares the VM that it was printed of."""

from __future__ import annotations

from reconciler.cli.adoption import block
from reconciler.model.observed import ObservedVm
from reconciler.observe.guests import Readiness
from reconciler.observe.status import vm_status
from reconciler.spec import load_text

HEAD = """\
apiVersion: banger/v1
name: demo
kernels: {debian: {debian: {suite: bookworm}}}
images: {base: {debian: {suite: bookworm}, kernel: debian}}
vms:
"""
FULL = """\
  dev:
    image: base
    cpus: 2
    memory: 1GiB
    disk: 2GiB
    network: user
    volumes: {data: {size: 64MiB, mount: /data}}
    ports: ["127.0.0.1:8080:80", "5353:53/udp"]
    ttl: 90m
    workspace: {host: /src, guest: /root/repo, untracked: true}
"""


def test_the_block_says_the_same() -> None:
    for text in (FULL, "  dev: {image: base}\n"):
        wanted = load_text((HEAD + text).encode(), "f", {}, {}).vms["dev"]
        observed = ObservedVm(name="dev", id="1", spec=wanted, mac="02:00:00:00:00:01", disk=True)
        made = block(vm_status("demo", observed, Readiness(ready=True, reason="Ready")))
        assert load_text((HEAD + made).encode(), "f", {}, {}).vms["dev"] == wanted
