"""The image and the kernel of a VM, and the guest tools, while it is started, and when it was used last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from reconciler.execute.tools import Tools
from reconciler.lib.inuse import in_use, mark_used
from reconciler.model.artifacts import GUEST_TOOLS
from reconciler.model.vm import Vm


def artifacts(vm: Vm, tools: Tools) -> tuple[Path, ...]:
    """The folders in the cache that a VM is made of, and started with."""
    paths = tools.paths
    return paths.image(vm.image_id).root, paths.kernel(vm.kernel_id).root, paths.tools_disk(GUEST_TOOLS.id).root


@contextmanager
def held_artifacts(vm: Vm, tools: Tools) -> Iterator[None]:
    """Keeps what a VM is made of from being evicted between the look at it and its start. What is missing is told by who needs it."""
    with ExitStack() as stack:
        for folder in artifacts(vm, tools):
            try:
                stack.enter_context(in_use(folder))
            except OSError:
                continue
        yield


def let_go(vm: Vm, tools: Tools) -> None:
    """Notes that until now a VM used what it is made of."""
    mark_used(*artifacts(vm, tools))
