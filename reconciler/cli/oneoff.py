"""One-off VMs: each an environment of its own, that no file describes, and that goes with the command that made it.

A note is written before the VM is, and locked for as long as its command lives (flock(2)). A note that nobody holds is
what a killed command left; the next command of banger finds it, and removes what it is about.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.api.service import ApplyOptions, Service, VmRef, VmVerb
from reconciler.cli.reporter import Quiet
from reconciler.cli.terminal import say
from reconciler.lib.errors import BangerError, UsageError
from reconciler.lib.paths import Paths

PREFIX = "run-"
"""Of the environments of one-off VMs."""

_TRIES = 50
_ADJECTIVES = (
    *("able", "amber", "bold", "brave", "brisk", "calm", "clear", "clever", "cosy", "crisp", "deft", "eager", "early"),
    *("fair", "fast", "fine", "fond", "fresh", "gentle", "glad", "golden", "grand", "green", "handy", "happy", "hardy"),
    *(
        "jolly",
        "keen",
        "kind",
        "light",
        "lively",
        "lucky",
        "merry",
        "mild",
        "neat",
        "nimble",
        "noble",
        "plain",
        "polite",
    ),
    *("proud", "quick", "quiet", "rapid", "ready", "red", "rosy", "sharp", "shiny", "silver", "smart", "snug", "soft"),
    *("solid", "steady", "sunny", "swift", "tidy", "tiny", "true", "vivid", "warm", "wise", "witty", "young"),
)
_NOUNS = (
    *("alder", "ant", "badger", "bear", "beaver", "bee", "birch", "bison", "cedar", "clover", "crane", "crow", "deer"),
    *(
        "dove",
        "duck",
        "eagle",
        "elk",
        "elm",
        "falcon",
        "fern",
        "finch",
        "fox",
        "frog",
        "goose",
        "hare",
        "hawk",
        "hazel",
    ),
    *(
        "heron",
        "ibex",
        "iris",
        "jay",
        "kite",
        "lark",
        "lily",
        "linden",
        "lion",
        "lynx",
        "maple",
        "marten",
        "mole",
        "moss",
    ),
    *(
        "moth",
        "newt",
        "oak",
        "orca",
        "otter",
        "owl",
        "panda",
        "pine",
        "plum",
        "puffin",
        "quail",
        "raven",
        "robin",
        "rose",
    ),
    *(
        "seal",
        "sparrow",
        "stork",
        "swan",
        "thrush",
        "tiger",
        "toad",
        "trout",
        "tulip",
        "viper",
        "whale",
        "willow",
        "wolf",
        "wren",
    ),
)


def new_name(service: Service, wanted: str | None) -> str:
    """The name of a one-off VM: as wanted, or one that is free. UsageError if the wanted one is not."""
    taken = set(service.environments())
    if wanted is not None:
        if PREFIX + wanted in taken:
            raise UsageError(f"there is a one-off vm {wanted}", hint=f"banger delete {PREFIX}{wanted} removes it")
        return wanted
    for _ in range(_TRIES):
        name = f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}"
        if PREFIX + name not in taken and not _note(PREFIX + name).exists():
            return name
    return f"{secrets.choice(_NOUNS)}-{secrets.token_hex(4)}"


@contextmanager
def noted(environment: str) -> Iterator[Path]:
    """Notes that `environment` goes with this process, which has to `forget` the note once it is gone, or is to stay.

    BangerError if another process has that name.
    """
    note = _note(environment)
    note.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    note.parent.mkdir(exist_ok=True)
    with _held(note, os.O_CREAT) as held:
        if not held:
            raise BangerError(f"another command is using the name {environment}", hint="leave --name out")
        note.write_text(json.dumps({"environment": environment, "begun": time.time()}))
        yield note


def forget(note: Path) -> None:
    """From here on its environment is gone, or like any other."""
    note.unlink(missing_ok=True)


@contextmanager
def _held(note: Path, flags: int = 0) -> Iterator[bool]:
    """Whether this process has the note to itself, for the length of the block. OSError if it is not there."""
    fd = os.open(note, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody may have removed it meanwhile, and another one have made it anew.
            held = note.exists() and os.fstat(fd).st_ino == note.stat().st_ino
        except BlockingIOError:
            held = False
        yield held
    finally:
        os.close(fd)


def remove(service: Service, environment: str) -> None:
    """Ends the VMs of an environment at once, and moves them to the trash."""
    if environment not in service.environments():
        return
    for vm in service.vms(environment):
        if vm.details.get("pid") is not None:
            service.vm(VmVerb.KILL, VmRef(environment=environment, name=vm.name), ApplyOptions(wait=False), Quiet())
    result = service.delete(environment, ApplyOptions(), Quiet(), lambda plan: True)
    for outcome in result.failed:
        if outcome.error is not None:
            raise outcome.error


def sweep(service: Service) -> None:
    """Removes what commands left that were killed. What cannot be removed now is tried again by the next command."""
    for note in sorted(_folder().glob(f"{PREFIX}*")):
        try:
            with _held(note) as held:
                if held:
                    remove(service, note.name)
                    forget(note)
                    say(f"removed {note.name}, left by a `banger run` that was killed; its disk is in the trash")
        except FileNotFoundError:
            continue
        except (BangerError, OSError) as problem:
            say(f"banger: {note.name}, left by a `banger run` that was killed, cannot be removed yet: {problem}")


def _folder() -> Path:
    return Paths.discover().state / "runs"


def _note(environment: str) -> Path:
    return _folder() / environment
