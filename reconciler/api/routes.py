"""Every operation of the API, in the order of its description."""

from __future__ import annotations

from reconciler.api import handlers
from reconciler.api.endpoints import Endpoint, Kind
from reconciler.api.handlers import NOTHING
from reconciler.api.service import Channel, VmVerb, WaitFor
from reconciler.api.shapes import END, NAME, TEXT, USER, Schema, schema
from reconciler.model.desired import DesiredState

_TEXT: Schema = {"type": "string"}
_MAYBE_TEXT: Schema = {"type": ["string", "null"]}
_MAYBE_NAME: Schema = {"anyOf": [NAME, {"type": "null"}]}
# `dev`, `vm/dev`, `demo/dev`.
_REFERENCE: Schema = {"type": "string", "pattern": f"^[a-z][a-z0-9/-]{{0,130}}{END}"}
_MAYBE_USER: Schema = {"anyOf": [USER, {"type": "null"}]}
_DIGEST: Schema = {"type": "string", "pattern": f"^[0-9a-f]{{4,64}}{END}"}
_EXPECT: Schema = {
    "type": "string",
    "pattern": f"^([0-9a-f]{{16}}|{NOTHING})?{END}",
    "description": f"The fingerprint of the plan that is consented to. Empty: any. `{NOTHING}`: none is; it is the answer.",
}
_ENTRY: Schema = {"type": "string", "pattern": f"^[A-Za-z0-9][A-Za-z0-9._-]{{0,199}}{END}"}
_MAYBE_ENTRY: Schema = {"anyOf": [_ENTRY, {"type": "null"}]}
_SECONDS: Schema = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1e9}, {"type": "null"}]}
_ID: Schema = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
_ENVIRONMENT: dict[str, Schema] = {"environment": NAME}


def _object(required: list[str], **properties: Schema) -> Schema:
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": required} if required else found


def _answer(**properties: Schema) -> Schema:
    return _object(list(properties), **properties)


def _listing(item: Schema) -> Schema:
    return _answer(apiVersion={"const": "banger/v1"}, items={"type": "array", "items": item})


OPTIONS = _object(
    [],
    allowRecreate={"type": "boolean", "description": "Whether VMs may be made anew; their volumes stay."},
    expect={
        "anyOf": [{"type": "string", "pattern": f"^[0-9a-f]{{16}}{END}"}, {"type": "null"}],
        "description": "The fingerprint of a saved plan; anything else that would be planned now is an error.",
    },
    wait={"type": "boolean", "description": "Whether to wait until the VMs are ready."},
    timeout={**_SECONDS, "description": "Seconds to wait; null: as each VM says."},
    parallel={"type": "integer", "minimum": 1, "maximum": 64, "description": "How many steps run at once."},
)
STATUS: Schema = {"$ref": "#/components/schemas/Status"}
EVENT: Schema = {"$ref": "#/components/schemas/Event"}
PLAN: Schema = {"$ref": "#/components/schemas/Plan"}
RESULT: Schema = {"$ref": "#/components/schemas/ApplyResult"}
DESIRED = schema(DesiredState)
VM_REF = _answer(environment=_TEXT, name=_TEXT)
_CHANGED = _answer(changed={"type": "boolean"})
_INFO = _answer(
    version=_TEXT,
    pid={"type": "integer"},
    state=_TEXT,
    controller={"type": "boolean"},
    since={"type": "number"},
    sources={
        "type": "array",
        "items": _answer(
            path=_TEXT,
            environment=_MAYBE_TEXT,
            problem=_MAYBE_TEXT,
            generation={"type": "integer"},
            since={"type": "number"},
        ),
    },
)
_TRASHED = _answer(entry=_TEXT, environment=_TEXT, name=_TEXT, trashedAt={"type": "number"}, size={"type": "integer"})
_COUNT: Schema = {"type": "integer"}
_TIME: Schema = {"type": "number"}
_ENTRIES = _answer(
    kind=_TEXT,
    name=_TEXT,
    environment=_MAYBE_TEXT,
    protected={"type": "boolean"},
    size=_COUNT,
    shared={"type": "array", "items": _answer(inode=_TEXT, size=_COUNT, links=_COUNT, here=_COUNT)},
    madeAt=_TIME,
    usedAt=_TIME,
    evict={"type": "boolean"},
    rule=_TEXT,
    reason=_TEXT,
    frees=_COUNT,
)
_CACHE = _answer(
    apiVersion={"const": "banger/v1"},
    folder=_TEXT,
    used=_COUNT,
    free=_COUNT,
    total=_COUNT,
    limit={"type": ["integer", "null"]},
    pressed={"type": "boolean"},
    policy={"type": "boolean"},
    items={"type": "array", "items": _ENTRIES},
)
_MAYBE_COUNT: Schema = {"type": ["integer", "null"]}
_MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
_USAGE = _answer(
    kind={"const": "usage"},
    environment=_TEXT,
    name=_TEXT,
    running={"type": "boolean"},
    uptime={**_MAYBE_NUMBER, "description": "Seconds since its VMM started."},
    cpu=_answer(cpus=_COUNT, seconds={**_MAYBE_NUMBER, "description": "Of one CPU of the host, since then."}),
    memory=_answer(size=_COUNT, resident={**_MAYBE_COUNT, "description": "Bytes of the host's that its VMM has."}),
    network=_answer(received=_MAYBE_COUNT, sent={**_MAYBE_COUNT, "description": "Bytes; null where nobody counts."}),
    disks={"type": "array", "items": _answer(name=_TEXT, allocated=_COUNT, size=_COUNT)},
)
_IDENTITY: Schema = {"type": "string", "pattern": f"^[0-9a-f]{{16}}{END}"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_IMAGE = _answer(
    kind={"const": "image"},
    name=_TEXT,
    names=_TEXTS,
    source=_TEXT,
    digest=_TEXT,
    size=_COUNT,
    usedBy=_TEXTS,
    usedAt=_TIME,
    pinned={"type": "boolean"},
    manifest={"type": "object", "description": "Its image.json."},
)
_SOURCE = _object(
    ["path", "digest"],
    path={"type": "string", "pattern": "^/[^\\x00-\\x1f]{0,4000}" + END},
    digest={"type": "string", "pattern": f"^[0-9a-f]{{64}}{END}"},
)
_VERBS = {
    VmVerb.START: "Starts one VM.",
    VmVerb.STOP: "Stops one VM in order; it stays stopped.",
    VmVerb.RESTART: "Stops one VM in order, and starts it.",
    VmVerb.KILL: "Ends one VM at once: what its guest has not synced is lost.",
}
_VM = "/v1/vms/{environment}/{name}"
_EMPTY_DESIRED = {"environment": "demo"}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET", path="/v1/info", name="info", summary="Who answers, and from which files.",
        handler=handlers.info, answer=_INFO,
    ),
    Endpoint(
        method="GET", path="/v1/status", name="status", summary="Every object, observed now.",
        handler=handlers.status, query=_ENVIRONMENT, answer=_listing(STATUS),
    ),
    Endpoint(
        method="GET", path="/v1/vms", name="vms", summary="The VMs, without probing the guests for long.",
        handler=handlers.vms, query=_ENVIRONMENT, answer=_listing(STATUS),
    ),
    Endpoint(
        method="GET", path="/v1/usage", name="usage", summary="What the VMs use of the host now.",
        handler=handlers.usage, query=_ENVIRONMENT, answer=_listing(_USAGE),
    ),
    Endpoint(
        method="GET", path="/v1/networks", name="networks", summary="The networks, and who is on them.",
        handler=handlers.networks, query=_ENVIRONMENT, answer=_listing(STATUS),
    ),
    Endpoint(
        method="GET", path="/v1/environments", name="environments", summary="The names of all environments.",
        handler=handlers.environments, answer=_listing(_TEXT),
    ),
    Endpoint(
        method="GET", path="/v1/resolve", name="resolve", summary="The one VM that a short name means.",
        handler=handlers.resolve, query={"name": _REFERENCE, **_ENVIRONMENT}, required=frozenset({"name"}), answer=VM_REF,
    ),
    Endpoint(
        method="POST", path="/v1/plan", name="plan", summary="What an apply would do now. Changes nothing.",
        handler=handlers.plan, body=_object(["desired"], desired=DESIRED, options=OPTIONS), answer=PLAN,
        example={"desired": _EMPTY_DESIRED},
    ),
    Endpoint(
        method="POST", path="/v1/apply", name="apply", summary="Converges the host to a desired state.",
        handler=handlers.apply, kind=Kind.CHANGE, answer=RESULT,
        body=_object(["desired", "source"], desired=DESIRED, source=_SOURCE, options=OPTIONS, expect=_EXPECT),
        example={"desired": _EMPTY_DESIRED, "source": {"path": "/home/me/banger.yaml", "digest": "0" * 64}},
    ),
    Endpoint(
        method="DELETE", path="/v1/environments/{environment}", name="delete",
        summary="Removes an environment; its VMs and volumes go to the trash.",
        handler=handlers.delete, kind=Kind.CHANGE, answer=RESULT,
        query={"expect": _EXPECT, "parallel": {"type": "integer", "minimum": 1, "maximum": 64}},
    ),
    Endpoint(
        method="POST", path="/v1/environments/{environment}/pause", name="pauseEnvironment",
        summary="Has the controller leave an environment alone.", handler=handlers.pause, answer=_CHANGED,
    ),
    Endpoint(
        method="POST", path="/v1/environments/{environment}/resume", name="resumeEnvironment",
        summary="The end of a pause.", handler=handlers.resume, answer=_CHANGED,
    ),
    *(
        Endpoint(
            method="POST", path=f"{_VM}/{verb}", name=f"{verb}Vm", summary=_VERBS[verb],
            handler=handlers.vm_verb(verb), kind=Kind.CHANGE, answer=VM_REF,
            body=_object([], options=OPTIONS), body_optional=True, example={},
        )
        for verb in VmVerb
    ),
    Endpoint(
        method="POST", path=f"{_VM}/commit", name="commitVm", summary="Makes an image of a stopped VM's disk.",
        handler=handlers.commit, kind=Kind.CHANGE, example={"image": "gold"},
        body=_object(["image"], image=NAME, options=OPTIONS),
        answer=_answer(path=_TEXT, sha256=_TEXT, size={"type": "integer"}, kernel=_TEXT),
    ),
    Endpoint(
        method="POST", path=f"{_VM}/pause", name="pauseVm", summary="Has the controller leave a VM alone.",
        handler=handlers.pause, answer=_CHANGED,
    ),
    Endpoint(
        method="POST", path=f"{_VM}/resume", name="resumeVm", summary="The end of a pause.",
        handler=handlers.resume, answer=_CHANGED,
    ),
    Endpoint(
        method="POST", path=f"{_VM}/ssh", name="ssh", summary="The ssh command line that enters a running VM.",
        handler=handlers.ssh, body_optional=True, example={},
        body=_object(
            [],
            command={"anyOf": [{"type": "array", "items": TEXT}, {"type": "null"}]},
            tty={"type": ["boolean", "null"]},
            user=_MAYBE_USER,
            lendAgent={"type": "boolean", "description": "Whether programs in the guest may use the caller's ssh agent."},
            forwards={"type": "array", "items": TEXT, "description": "`-L`, `-R`, `-D` and their values."},
        ),
        answer=_answer(argv={"type": "array", "items": _TEXT}),
    ),
    Endpoint(
        method="POST", path=f"{_VM}/way", name="way", summary="How commands are run in a running VM.",
        handler=handlers.way, body_optional=True, example={}, body=_object([], user=_MAYBE_USER),
        answer=_answer(
            channel={"enum": [channel.value for channel in Channel]},
            user=_TEXT,
            root=_TEXT,
            run=_TEXT,
            argv={"type": "array", "items": _TEXT},
            master={"type": "array", "items": _TEXT},
            control=_MAYBE_TEXT,
            entry=_MAYBE_TEXT,
            workspace={
                "oneOf": [
                    {"type": "null"},
                    _object(["host", "guest", "untracked"], host=_TEXT, guest=_TEXT, untracked={"type": "boolean"}),
                ]
            },
        ),
    ),
    Endpoint(
        method="GET", path=f"{_VM}/console", name="console", summary="The file that a VM's serial console is written to.",
        handler=handlers.console, answer=_answer(path=_TEXT),
    ),
    Endpoint(
        method="GET", path="/v1/ssh-config", name="sshConfig", summary="All VMs as hosts for OpenSSH's own programs.",
        handler=handlers.ssh_config, answer=_answer(path=_TEXT, text=_TEXT, kept={"type": "boolean"}),
    ),
    Endpoint(
        method="PUT", path="/v1/ssh-config", name="keepSshConfig",
        summary="Keeps the file with those hosts up to date from now on, or removes it.",
        handler=handlers.keep_ssh_config, answer=_object([]), example={"kept": True},
        body=_object(["kept"], kept={"type": "boolean"}),
    ),
    Endpoint(
        method="GET", path="/v1/trash", name="trash", summary="What is in the trash, newest first.",
        handler=handlers.trash, answer=_listing(_TRASHED),
    ),
    Endpoint(
        method="DELETE", path="/v1/trash/entries/{entry}", name="discard", summary="Deletes what lies in the trash for good.",
        handler=handlers.discard, path_schema=_ENTRY, answer=_answer(freed={"type": "integer"}),
    ),
    Endpoint(
        method="POST", path="/v1/trash/restore", name="restore", summary="Brings a VM back from the trash.",
        handler=handlers.restore, kind=Kind.CHANGE, answer=VM_REF, example={"name": "dev"},
        body=_object(["name"], name=_REFERENCE, environment=_MAYBE_NAME, entry=_MAYBE_ENTRY, options=OPTIONS),
    ),
    Endpoint(
        method="POST", path="/v1/cache", name="cache",
        summary="What lies in the cache and in the trash, and what a policy would do. Changes nothing.",
        handler=handlers.cache, body=_object([], desired=DESIRED), body_optional=True, answer=_CACHE, example={},
    ),
    Endpoint(
        method="POST", path="/v1/cache/prune", name="pruneCache", summary="Evicts what a policy lets go now.",
        handler=handlers.prune_cache, kind=Kind.CHANGE, answer=RESULT,
        body=_object(["desired"], desired=DESIRED, options=OPTIONS, expect=_EXPECT), example={"desired": _EMPTY_DESIRED},
    ),
    Endpoint(
        method="POST", path="/v1/cache/clear", name="clearBlobs",
        summary="Removes all blobs that came from registries; no image needs them.",
        handler=handlers.clear_blobs, body_optional=True, example={"dryRun": True},
        body=_object([], dryRun={"type": "boolean", "description": "Only count them."}),
        answer=_answer(folder=_TEXT, blobs={"type": "integer"}, size={"type": "integer"}),
    ),
    Endpoint(
        method="GET", path="/v1/images", name="images", summary="The images of the cache, and what uses them.",
        handler=handlers.images, answer=_listing(_IMAGE),
    ),
    Endpoint(
        method="DELETE", path="/v1/images/{image}", name="removeImage",
        summary="Removes an image of the cache that nothing is made of.",
        handler=handlers.remove_image, path_schema=_IDENTITY, answer=_answer(freed={"type": "integer"}),
    ),
    Endpoint(
        method="POST", path="/v1/images/{image}/pin", name="pinImage", summary="Has an image kept whatever a policy says.",
        handler=handlers.pin_image, path_schema=_IDENTITY, answer=_CHANGED,
    ),
    Endpoint(
        method="POST", path="/v1/images/{image}/unpin", name="unpinImage", summary="The end of that.",
        handler=handlers.unpin_image, path_schema=_IDENTITY, answer=_CHANGED,
    ),
    Endpoint(
        method="POST", path="/v1/lock", name="lockImages",
        summary="What each tag means now: the registries are asked. Changes nothing.",
        handler=handlers.lock_images, body=_object(["desired"], desired=DESIRED),
        answer=_answer(digests={"type": "object", "additionalProperties": _TEXT}), example={"desired": _EMPTY_DESIRED},
    ),
    Endpoint(
        method="POST", path="/v1/wait", name="wait", summary="Waits until VMs are ready, stopped or gone.",
        handler=handlers.wait, kind=Kind.WAIT, answer=_object([]), example={"environment": "demo"},
        body=_object(
            ["environment"],
            environment=NAME,
            names={"type": "array", "items": _REFERENCE},
            timeout=_SECONDS,
            condition={"enum": [condition.value for condition in WaitFor]},
        ),
    ),
    Endpoint(
        method="POST", path="/v1/approvals/{digest}", name="approve",
        summary="Lets the removals go that are held under a digest.",
        handler=handlers.approve, path_schema=_DIGEST, answer=_answer(environment=_TEXT),
    ),
    Endpoint(
        method="GET", path="/v1/events", name="events",
        summary="What happened, oldest first. With `Accept: text/event-stream` also what happens from now on.",
        handler=handlers.events, kind=Kind.EVENTS, answer=_listing(EVENT),
        query={**_ENVIRONMENT, "after": _ID, "follow": {"type": "boolean"}},
    ),
    Endpoint(
        method="GET", path="/metrics", name="metrics", summary="For Prometheus: text exposition format 0.0.4.",
        handler=handlers.metrics, kind=Kind.TEXT, answer=_TEXT,
    ),
)  # fmt: skip
