"""What a file asks for inside of a guest, beyond its image: files, settings, work. Pure.

What stands on the host (`host:`) is named here, never held: the host is observed, and a digest of what was found stands
for it in plans and in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reconciler.model.ids import identity

ROOT_OWNER = "root:root"

RESERVED = ("/proc", "/sys", "/dev", "/run", "/var/lib/banger")
"""Of a guest: what the kernel and the boot own; the last holds banger's memory of the files that it wrote there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFile:
    """A file of a guest, or with a folder as `host` a tree of them.

    Parameters
    ----------
    guest: an absolute path in its shortest form.
    content: the text of the file; exactly one of this, `host` and `link` is given.
    host: an absolute path on the host.
    link: what it is to be a symbolic link to; not of the file's own making.
    mode: permission bits of regular files; None for those of the host's files, and 0644 for `content`.
    owner: user and group, each a name or a number, in the guest.
    """

    guest: str
    content: str | None = None
    host: str | None = None
    link: str | None = None
    mode: int | None = None
    owner: str = ROOT_OWNER


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """An environment variable of the guest's programs. `value` is one line."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What stands for a value that is read when it is needed, and kept nowhere.

    Parameters
    ----------
    env, file, command: exactly one of them: a variable of the process that reads it, an absolute path on the host, a
        program and its arguments whose output it is.
    guest: a path in the guest that leads to it; None for a variable of its name.
    mode, owner: of the file in the guest's memory.
    """

    name: str
    env: str | None = None
    file: str | None = None
    command: tuple[str, ...] = ()
    guest: str | None = None
    mode: int = 0o600
    owner: str = ROOT_OWNER

    @property
    def reference(self) -> str:
        """Where the value comes from, for people."""
        if self.env is not None:
            return f"the variable {self.env}"
        return f"the file {self.file}" if self.file is not None else f"the command {self.command[0]}"

    @property
    def link(self) -> GuestFile | None:
        """What stands at `guest`, on the guest's disk: the value itself is in its memory."""
        if self.guest is None:
            return None
        return GuestFile(guest=self.guest, link=f"{SECRETS}/{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionStep:
    """Work to be done in a guest, as root.

    Parameters
    ----------
    run, script: exactly one of them: text for a POSIX shell, or the absolute path of a program on the host.
    once: whether it is done once for its content; else at each start.
    timeout: seconds.
    """

    run: str | None = None
    script: str | None = None
    once: bool = True
    timeout: float = 600.0


SECRETS = "/run/banger/secrets"
"""The folder of a guest that has them, in its memory."""

AS_STARTED = "as started"
"""The fact of a guest that was given files at its start, and has not been seen to have them."""


def reserved(path: str) -> bool:
    """Whether a guest's path is one that no file may have."""
    return any(path == owned or path.startswith(f"{owned}/") for owned in RESERVED)


def files_fact(files: Iterable[GuestFile], sources: Mapping[str, str]) -> str:
    """The files of a guest as a fact: how many entries, and what they come to. `sources` has the digest of each `host`."""
    given = [
        [
            file.guest,
            file.content or file.link,
            sources[file.host] if file.host is not None else None,
            file.mode,
            file.owner,
        ]
        for file in files
    ]
    return f"{len(given)} ({identity('files', given)})" if given else ""


def env_fact(variables: Sequence[Variable]) -> str:
    """The variables of a guest as a fact."""
    return f"{len(variables)} ({identity('env', [[v.name, v.value] for v in variables])})" if variables else ""


def secrets_fact(secrets: Sequence[Secret], digests: Mapping[Secret, str]) -> str:
    """The secrets of a guest as a fact. `digests` has a keyed hash of each value, from which nothing can be learned."""
    given = [[s.name, digests[s], s.guest, s.mode, s.owner] for s in secrets]
    return f"{len(given)} ({identity('secrets', given)})" if given else ""


def step_keys(steps: Iterable[ProvisionStep], sources: Mapping[str, str]) -> list[str]:
    """What stands for the content of each step; one that stands there twice is done twice."""
    keys: list[str] = []
    for step in steps:
        content = ["script", sources[step.script]] if step.script is not None else ["run", step.run]
        count = 0
        while (key := identity("step", [*content, count])) in keys:
            count += 1
        keys.append(key)
    return keys


def provision_fact(steps: Sequence[ProvisionStep], sources: Mapping[str, str]) -> str:
    """The work in a guest as a fact."""
    given = [[key, step.once] for key, step in zip(step_keys(steps, sources), steps, strict=True)]
    return f"{len(given)} ({identity('provision', given)})" if given else ""
