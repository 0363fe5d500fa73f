"""What each operation of the API does with the service. Runs on the server's threads; what comes in is checked already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reconciler.api.cache_forms import cleared_to, view_to
from reconciler.api.endpoints import Call, Work
from reconciler.api.forms import committed_to, info_to, listing, options_from, ref_to, trash_to, way_to
from reconciler.api.image_forms import image_to
from reconciler.api.metrics import exposition
from reconciler.api.plan_forms import result_to
from reconciler.api.requests import desired_from
from reconciler.api.service import ApplyOptions, Approve, Reporter, Source, SshOptions, VmRef, VmVerb, WaitFor
from reconciler.api.usage_forms import usage_to
from reconciler.model.plan import Plan

NOTHING = "none"
"""In place of a plan's fingerprint: the answer is the plan, and nothing is done."""


def info(call: Call) -> Any:
    return info_to(call.service.info())


def status(call: Call) -> Any:
    return listing([status.to_json() for status in call.service.status(call.query.get("environment"))])


def vms(call: Call) -> Any:
    return listing([vm.to_json() for vm in call.service.vms(call.query.get("environment"))])


def usage(call: Call) -> Any:
    return listing([usage_to(found) for found in call.service.usage(call.query.get("environment"))])


def networks(call: Call) -> Any:
    return listing([network.to_json() for network in call.service.networks(call.query.get("environment"))])


def environments(call: Call) -> Any:
    return listing(call.service.environments())


def resolve(call: Call) -> Any:
    return ref_to(call.service.resolve(call.query["name"], call.query.get("environment")))


def trash(call: Call) -> Any:
    return listing([trash_to(entry) for entry in call.service.trash()])


def discard(call: Call) -> Any:
    return {"freed": call.service.discard(call.path["entry"])}


def events(call: Call) -> Any:
    """The events themselves: the server makes a listing or a stream of them."""
    return list(call.service.events(call.query.get("environment"), call.query.get("after"), False))


def metrics(call: Call) -> str:
    return exposition(call.service.info(), call.service.vms(None), call.counters)


def plan(call: Call) -> Any:
    return call.service.plan(desired_from(call.body["desired"]), _options(call)).to_json()


def apply(call: Call) -> Work:
    desired, options = desired_from(call.body["desired"]), _options(call)
    source = Source(path=Path(call.body["source"]["path"]), digest=call.body["source"]["digest"])
    approve = _approves(call.body.get("expect"))
    return lambda reporter: result_to(call.service.apply(desired, source, options, reporter, approve))


def delete(call: Call) -> Work:
    options = ApplyOptions(parallel=call.query.get("parallel", ApplyOptions().parallel), operation=call.operation)
    approve = _approves(call.query.get("expect"))
    return lambda reporter: result_to(call.service.delete(call.path["environment"], options, reporter, approve))


def vm_verb(verb: VmVerb) -> Any:
    """The handler of one verb."""

    def handler(call: Call) -> Work:
        ref, options = _ref(call), _options(call)

        def work(reporter: Reporter) -> Any:
            call.service.vm(verb, ref, options, reporter)
            return ref_to(ref)

        return work

    return handler


def commit(call: Call) -> Work:
    ref, image, options = _ref(call), call.body["image"], _options(call)
    return lambda reporter: committed_to(call.service.commit(ref, image, options, reporter))


def restore(call: Call) -> Work:
    body, options = call.body, _options(call)
    return lambda reporter: ref_to(
        call.service.restore(body["name"], body.get("environment"), body.get("entry"), options, reporter)
    )


def wait(call: Call) -> Work:
    body = call.body
    condition = WaitFor(body.get("condition", WaitFor.READY.value))

    def work(reporter: Reporter) -> Any:
        call.service.wait(body["environment"], body.get("names", []), body.get("timeout"), reporter, condition)
        return {}

    return work


def cache(call: Call) -> Any:
    wanted = call.body.get("desired")
    return view_to(call.service.cache(None if wanted is None else desired_from(wanted)))


def prune_cache(call: Call) -> Work:
    desired, options = desired_from(call.body["desired"]), _options(call)
    approve = _approves(call.body.get("expect"))
    return lambda reporter: result_to(call.service.prune_cache(desired, options, reporter, approve))


def clear_blobs(call: Call) -> Any:
    return cleared_to(call.service.clear_blobs(call.body.get("dryRun", False)))


def images(call: Call) -> Any:
    return listing([image_to(image) for image in call.service.images()])


def remove_image(call: Call) -> Any:
    return {"freed": call.service.remove_image(call.path["image"])}


def pin_image(call: Call) -> Any:
    return {"changed": call.service.pin_image(call.path["image"], True)}


def unpin_image(call: Call) -> Any:
    return {"changed": call.service.pin_image(call.path["image"], False)}


def lock_images(call: Call) -> Any:
    return {"digests": dict(call.service.lock_images(desired_from(call.body["desired"])))}


def approve(call: Call) -> Any:
    return {"environment": call.service.approve(call.path["digest"])}


def pause(call: Call) -> Any:
    return {"changed": call.service.pause(call.path["environment"], call.path.get("name"))}


def resume(call: Call) -> Any:
    return {"changed": call.service.resume(call.path["environment"], call.path.get("name"))}


def ssh(call: Call) -> Any:
    body = call.body
    options = SshOptions(
        user=body.get("user"), lend_agent=body.get("lendAgent", False), forwards=tuple(body.get("forwards", ()))
    )
    return {"argv": call.service.ssh_argv(_ref(call), body.get("command"), body.get("tty"), options)}


def way(call: Call) -> Any:
    return way_to(call.service.way_in(_ref(call), call.body.get("user")))


def ssh_config(call: Call) -> Any:
    found = call.service.ssh_config()
    return {"path": str(found.path), "text": found.text, "kept": found.kept}


def keep_ssh_config(call: Call) -> Any:
    call.service.keep_ssh_config(call.body["kept"])
    return {}


def console(call: Call) -> Any:
    return {"path": str(call.service.console_log(_ref(call)))}


def _ref(call: Call) -> VmRef:
    return VmRef(environment=call.path["environment"], name=call.path["name"])


def _options(call: Call) -> ApplyOptions:
    return options_from(call.body.get("options", {}), call.operation)


def _approves(expect: str | None) -> Approve:
    """Consent to exactly the plan that a user was shown; to any, if none was."""

    def approve(plan: Plan) -> bool:
        return not expect or plan.fingerprint == expect

    return approve
