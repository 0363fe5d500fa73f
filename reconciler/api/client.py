"""A `Service` that asks a controller over its socket: the same answers, the same errors, the same progress."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from reconciler.api import forms
from reconciler.api.image_forms import image_from
from reconciler.api.service import (
    ApplyOptions,
    ApplyResult,
    Approve,
    CachedImage,
    CacheView,
    Cleared,
    Committed,
    Reporter,
    ServiceInfo,
    Source,
    SshConfig,
    SshOptions,
    TrashEntry,
    VmRef,
    VmVerb,
    WaitFor,
    WayIn,
)
from reconciler.api.transport import Answer, Transport, misunderstood
from reconciler.api.usage_forms import usage_from
from reconciler.lib.errors import BangerError, ErrorClass

if TYPE_CHECKING:
    from reconciler.model.desired import DesiredState
    from reconciler.model.events import Event
    from reconciler.model.plan import Plan
    from reconciler.model.status import ObjectStatus
    from reconciler.model.usage import VmUsage

# ruff: noqa: PLC0415  # what plans are made of loads when one is asked for

_APPROVALS = 5
_NOTHING = "none"
_GOES_ON = "the controller goes on with it; `banger events -f` follows, and the same command again waits for the end"


def reachable(path: Path) -> bool:
    """Whether somebody listens at a socket. Connects, and says nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # so many ask at once that its queue is full
        except OSError:
            return False
    return True


class RemoteService:
    """Implements `reconciler.api.service.Service`. Each request has a connection of its own, so any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._transport = Transport(path)

    def plan(self, desired: DesiredState, options: ApplyOptions) -> Plan:
        from reconciler.api.plan_forms import plan_from
        from reconciler.model.codec import to_json

        body = {"desired": to_json(desired), "options": forms.options_to(options)}
        with misunderstood():
            return plan_from(self._ask("POST", "/v1/plan", body, operation=options.operation))

    def apply(
        self, desired: DesiredState, source: Source, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        from reconciler.model.codec import to_json

        body = {
            "desired": to_json(desired),
            # The controller has another working directory.
            "source": {"path": str(source.path.absolute()), "digest": source.digest},
            "options": forms.options_to(options),
        }

        def attempt(expect: str) -> Answer:
            return self._transport.stream("POST", "/v1/apply", {**body, "expect": expect}, operation=options.operation)

        plan = self.plan(desired, options)
        if options.expect is not None and plan.fingerprint != options.expect:
            # Nothing to ask the user about: the controller says what is wrong.
            return self._result(attempt(_NOTHING), reporter)
        if plan.steps and not approve(plan):
            return ApplyResult(plan=plan, approved=False)
        return self._approved(plan, attempt, reporter, approve)

    def delete(self, environment: str, options: ApplyOptions, reporter: Reporter, approve: Approve) -> ApplyResult:
        def attempt(expect: str) -> Answer:
            query = urlencode({"expect": expect, "parallel": options.parallel})
            path = f"/v1/environments/{_word(environment)}?{query}"
            return self._transport.stream("DELETE", path, operation=options.operation)

        plan = self._result(attempt(_NOTHING), reporter).plan
        if not approve(plan):
            return ApplyResult(plan=plan, approved=False)
        return self._approved(plan, attempt, reporter, approve)

    def environments(self) -> list[str]:
        return list(self._list("/v1/environments"))

    def status(self, environment: str | None) -> list[ObjectStatus]:
        with misunderstood():
            return list(map(forms.status_from, self._list("/v1/status", environment=environment)))

    def vms(self, environment: str | None) -> list[ObjectStatus]:
        with misunderstood():
            return list(map(forms.status_from, self._list("/v1/vms", environment=environment)))

    def usage(self, environment: str | None) -> list[VmUsage]:
        with misunderstood():
            return list(map(usage_from, self._list("/v1/usage", environment=environment)))

    def networks(self, environment: str | None) -> list[ObjectStatus]:
        with misunderstood():
            return list(map(forms.status_from, self._list("/v1/networks", environment=environment)))

    def resolve(self, name: str, environment: str | None) -> VmRef:
        with misunderstood():
            return forms.ref_from(self._ask("GET", _path("/v1/resolve", name=name, environment=environment)))

    def wait(
        self,
        environment: str,
        names: Sequence[str],
        timeout: float | None,
        reporter: Reporter,
        condition: WaitFor = WaitFor.READY,
    ) -> None:
        body = {"environment": environment, "names": list(names), "timeout": timeout, "condition": condition.value}
        self._follow(self._transport.stream("POST", "/v1/wait", body), reporter, goes_on=False)

    def vm(self, verb: VmVerb, ref: VmRef, options: ApplyOptions, reporter: Reporter) -> None:
        body = {"options": forms.options_to(options)}
        stream = self._transport.stream("POST", f"{_vm(ref)}/{verb}", body, operation=options.operation)
        self._follow(stream, reporter)

    def trash(self) -> list[TrashEntry]:
        with misunderstood():
            return list(map(forms.trash_from, self._list("/v1/trash")))

    def restore(
        self, name: str, environment: str | None, entry: str | None, options: ApplyOptions, reporter: Reporter
    ) -> VmRef:
        body = {"name": name, "environment": environment, "entry": entry, "options": forms.options_to(options)}
        stream = self._transport.stream("POST", "/v1/trash/restore", body, operation=options.operation)
        ref = self._follow(stream, reporter)
        with misunderstood():
            return forms.ref_from(ref)

    def discard(self, entry: str) -> int:
        with misunderstood():
            return int(self._ask("DELETE", f"/v1/trash/entries/{_word(entry)}")["freed"])

    def cache(self, desired: DesiredState | None) -> CacheView:
        from reconciler.api.cache_forms import view_from
        from reconciler.model.codec import to_json

        body = {} if desired is None else {"desired": to_json(desired)}
        with misunderstood():
            return view_from(self._ask("POST", "/v1/cache", body))

    def prune_cache(
        self, desired: DesiredState, options: ApplyOptions, reporter: Reporter, approve: Approve
    ) -> ApplyResult:
        from reconciler.model.codec import to_json

        body = {"desired": to_json(desired), "options": forms.options_to(options)}

        def attempt(expect: str) -> Answer:
            answer = {**body, "expect": expect}
            return self._transport.stream("POST", "/v1/cache/prune", answer, operation=options.operation)

        plan = self._result(attempt(_NOTHING), reporter).plan
        if not plan.steps:
            return ApplyResult(plan=plan)
        if not approve(plan):
            return ApplyResult(plan=plan, approved=False)
        return self._approved(plan, attempt, reporter, approve)

    def clear_blobs(self, dry_run: bool) -> Cleared:
        from reconciler.api.cache_forms import cleared_from

        with misunderstood():
            return cleared_from(self._ask("POST", "/v1/cache/clear", {"dryRun": dry_run}))

    def commit(self, ref: VmRef, image: str, options: ApplyOptions, reporter: Reporter) -> Committed:
        body = {"image": image, "options": forms.options_to(options)}
        made = self._follow(
            self._transport.stream("POST", f"{_vm(ref)}/commit", body, operation=options.operation), reporter
        )
        with misunderstood():
            return forms.committed_from(made)

    def images(self) -> list[CachedImage]:
        with misunderstood():
            return list(map(image_from, self._list("/v1/images")))

    def remove_image(self, identity: str) -> int:
        with misunderstood():
            return int(self._ask("DELETE", f"/v1/images/{_word(identity)}")["freed"])

    def pin_image(self, identity: str, pinned: bool) -> bool:
        with misunderstood():
            verb = "pin" if pinned else "unpin"
            return bool(self._ask("POST", f"/v1/images/{_word(identity)}/{verb}")["changed"])

    def lock_images(self, desired: DesiredState) -> Mapping[str, str]:
        from reconciler.model.codec import to_json

        with misunderstood():
            return dict(self._ask("POST", "/v1/lock", {"desired": to_json(desired)})["digests"])

    def ssh_argv(
        self, ref: VmRef, command: Sequence[str] | None, tty: bool | None, options: SshOptions | None = None
    ) -> list[str]:
        options = options or SshOptions()
        body = {
            "command": None if command is None else list(command),
            "tty": tty,
            "user": options.user,
            "lendAgent": options.lend_agent,
            "forwards": list(options.forwards),
        }
        with misunderstood():
            return [str(word) for word in self._ask("POST", f"{_vm(ref)}/ssh", body)["argv"]]

    def way_in(self, ref: VmRef, user: str | None) -> WayIn:
        with misunderstood():
            return forms.way_from(self._ask("POST", f"{_vm(ref)}/way", {"user": user}))

    def ssh_config(self) -> SshConfig:
        with misunderstood():
            found = self._ask("GET", "/v1/ssh-config")
            return SshConfig(path=Path(found["path"]), text=str(found["text"]), kept=bool(found["kept"]))

    def keep_ssh_config(self, wanted: bool) -> None:
        self._ask("PUT", "/v1/ssh-config", {"kept": wanted})

    def console_log(self, ref: VmRef) -> Path:
        with misunderstood():
            return Path(self._ask("GET", f"{_vm(ref)}/console")["path"])

    def events(self, environment: str | None, after: int | None, follow: bool) -> Iterator[Event]:
        if not follow:
            with misunderstood():
                found = list(map(forms.event_from, self._list("/v1/events", environment=environment, after=after)))
            yield from found
            return
        while True:
            # A reader that was too slow is let go, and takes up where it was.
            for event in self._followed(environment, after):
                after = event.id
                yield event

    def approve(self, digest: str) -> str:
        with misunderstood():
            return str(self._ask("POST", f"/v1/approvals/{_word(digest)}")["environment"])

    def pause(self, environment: str, vm: str | None) -> bool:
        return self._changed("pause", environment, vm)

    def resume(self, environment: str, vm: str | None) -> bool:
        return self._changed("resume", environment, vm)

    def info(self) -> ServiceInfo:
        with misunderstood():
            return forms.info_from(self._ask("GET", "/v1/info"))

    def close(self) -> None:
        """Nothing is held open between two requests."""

    def _ask(self, method: str, path: str, body: Any = None, *, operation: str = "") -> Any:
        return self._transport.ask(method, path, body, operation=operation)

    def _list(self, path: str, **query: object) -> list[Any]:
        with misunderstood():
            return forms.items(self._ask("GET", _path(path, **query)))

    def _changed(self, what: str, environment: str, vm: str | None) -> bool:
        where = (
            f"/v1/environments/{_word(environment)}"
            if vm is None
            else _vm(VmRef(environment=environment, name=vm.removeprefix("vm/")))
        )
        with misunderstood():
            return bool(self._ask("POST", f"{where}/{what}")["changed"])

    def _approved(self, plan: Plan, attempt: Any, reporter: Reporter, approve: Approve) -> ApplyResult:
        """Has exactly the plan done that was agreed to; a host that has changed meanwhile is asked about again."""
        for _ in range(_APPROVALS):
            result = self._result(attempt(plan.fingerprint), reporter)
            if result.approved:
                return result
            plan = result.plan
            if not approve(plan):
                return result
        raise BangerError(
            f"the host changes faster than a plan for environment {plan.environment} can be agreed upon",
            hint=f"banger pause {plan.environment} keeps the controller off it meanwhile",
            error_class=ErrorClass.RETRYABLE,
        )

    def _result(self, stream: Answer, reporter: Reporter) -> ApplyResult:
        from reconciler.api.plan_forms import result_from

        result = self._follow(stream, reporter)
        with misunderstood():
            return result_from(result)

    def _follow(self, stream: Answer, reporter: Reporter, *, goes_on: bool = True) -> Any:
        """Hands the progress of an operation on to `reporter`; returns its result, or raises its error."""
        from reconciler.api.relay import relay

        with closing(stream):
            try:
                return relay(stream, reporter)
            except KeyboardInterrupt:
                if goes_on:
                    reporter.note(_GOES_ON)
                raise

    def _followed(self, environment: str | None, after: int | None) -> Iterator[Event]:
        """Until this reader is found to be too slow. BangerError when the controller ends."""
        path = _path("/v1/events", environment=environment, after=after, follow="true")
        with closing(self._transport.stream("GET", path)) as stream:
            for name, data in stream:
                if name == "lost":
                    return
                with misunderstood():
                    event = forms.event_from(data)
                yield event
        raise BangerError(
            "the controller has ended, and with it the stream of events",
            hint="banger events shows what happened; banger controller starts one",
            error_class=ErrorClass.RETRYABLE,
        )


def _word(text: str) -> str:
    return quote(text, safe="")


def _vm(ref: VmRef) -> str:
    return f"/v1/vms/{_word(ref.environment)}/{_word(ref.name)}"


def _path(path: str, **query: object) -> str:
    given: Mapping[str, object] = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path
