"""JSON schemas of model values, from the type hints that `model.codec` reads and writes them by.

What hints do not say (how a name looks, how large a number may be) is listed here by class and field.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Union, get_args, get_origin, get_type_hints

from reconciler.model.artifacts import (
    AptSource,
    Blob,
    BuiltImage,
    CopyStep,
    DebianImage,
    DebianKernel,
    Image,
    ImageKernel,
    Kernel,
    OciImage,
    UrlImage,
    UrlKernel,
)
from reconciler.model.codec import TAG
from reconciler.model.desired import Controller, DesiredState
from reconciler.model.retention import Limits, Rule, Safety, Watermarks
from reconciler.model.vm import Dependency, Egress, Network, Publication, Ready, Vm, Volume

Schema = dict[str, Any]
# `$` alone would let a line break follow: Python's `re`, unlike that of browsers, takes it for the end.
END = "(?!\\n)$"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS = f"{_OCTET}(\\.{_OCTET}){{3}}"
NAME: Schema = {"type": "string", "pattern": f"^[a-z][a-z0-9-]{{0,62}}{END}"}
# A zero ends what the kernel takes for a word.
TEXT: Schema = {"type": "string", "pattern": "^[^\\x00]*$"}
USER: Schema = {"type": "string", "pattern": f"^[A-Za-z_][A-Za-z0-9_.-]{{0,31}}{END}"}
_SUITE: Schema = {"type": "string", "pattern": f"^[a-z][a-z0-9-]{{0,39}}{END}"}
_PACKAGE: Schema = {"type": "string", "pattern": f"^[a-z0-9][a-z0-9+.-]{{1,99}}{END}"}
_IDENTITY: Schema = {"type": "string", "pattern": f"^[0-9a-f]{{8,64}}{END}"}
_SHA256: Schema = {"type": "string", "pattern": f"^[0-9a-f]{{64}}{END}"}
# No character that ends a word, neither here nor in a header of HTTP.
_URL: Schema = {"type": "string", "pattern": f"^(https?://[!-~]{{1,2000}}|file:///[^\\x00-\\x1f\\x7f]{{1,12000}}){END}"}
_SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": 1 << 60}
_DURATION: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9}
_DIGEST: Schema = {"type": "string", "pattern": f"^(sha256:[0-9a-f]{{64}})?{END}"}
_PATH: Schema = {"type": "string", "pattern": f"^(/[^\\x00-\\x1f]{{0,4095}})?{END}"}
_BYTES: Schema = {"type": "integer", "minimum": 0, "maximum": 1 << 60}
_MAYBE_BYTES: Schema = {"anyOf": [_BYTES, {"type": "null"}]}
_PART: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}

# The patterns of schemas/banger.schema.json: these values become paths and words of command lines.
_FIELDS: Mapping[tuple[type, str], Schema] = {
    (DesiredState, "environment"): NAME,
    (Kernel, "name"): NAME,
    (DebianKernel, "suite"): _SUITE,
    (DebianKernel, "package"): _PACKAGE,
    (Blob, "url"): _URL,
    (Blob, "sha256"): _SHA256,
    (UrlKernel, "url"): _URL,
    (UrlKernel, "sha256"): _SHA256,
    (ImageKernel, "image"): _IDENTITY,
    (UrlImage, "url"): _URL,
    (UrlImage, "sha256"): _SHA256,
    (Image, "name"): NAME,
    (Image, "kernel"): NAME,
    (DebianImage, "suite"): _SUITE,
    (DebianImage, "packages"): {"type": "array", "items": _PACKAGE},
    (DebianImage, "mirror"): {"anyOf": [_URL, {"type": "null"}]},
    (AptSource, "uri"): _URL,
    (AptSource, "suite"): {"type": "string", "pattern": f"^[A-Za-z0-9][A-Za-z0-9._~+/-]{{0,199}}{END}"},
    (AptSource, "components"): {
        "type": "array",
        "items": {"type": "string", "pattern": f"^[a-z0-9][A-Za-z0-9._+/-]{{0,99}}{END}"},
    },
    (BuiltImage, "base"): _IDENTITY,
    (CopyStep, "to"): {"type": "string", "pattern": f"^/[^\\x00-\\x1f\\x7f]{{1,4000}}{END}"},
    (CopyStep, "mode"): {"type": "string", "pattern": f"^[0-7]{{3,5}}{END}"},
    (OciImage, "ref"): {"type": "string", "pattern": f"^([a-z0-9\\[][A-Za-z0-9._:/@\\[\\]-]{{2,499}})?{END}"},
    (OciImage, "path"): _PATH,
    (OciImage, "platform"): {"type": "string", "pattern": f"^linux/(amd64(/v[1-4])?|386){END}"},
    (OciImage, "digest"): _DIGEST,
    (OciImage, "auth_file"): _PATH,
    (OciImage, "cert_dir"): _PATH,
    (OciImage, "policy"): _PATH,
    (Network, "name"): NAME,
    (Network, "mtu"): {"type": "integer", "minimum": 576, "maximum": 65535},
    (Egress, "to"): {"type": "string", "pattern": f"^[a-z0-9_.:*/-]{{1,255}}{END}"},
    (Egress, "first"): {"type": "integer", "minimum": 0, "maximum": 65535},
    (Egress, "last"): {"type": "integer", "minimum": 0, "maximum": 65535},
    (Publication, "host_address"): {"type": "string", "pattern": f"^[0-9a-f.:]{{0,45}}{END}"},
    (Publication, "host_port"): _PORT,
    (Publication, "protocol"): {"enum": ["tcp", "udp"]},
    (Publication, "guest_port"): _PORT,
    (Volume, "name"): {"type": "string", "pattern": f"^[a-z][a-z0-9-]{{0,14}}{END}"},
    (Volume, "size"): _SIZE,
    (Volume, "mount"): {"type": "string", "pattern": f"^/[A-Za-z0-9._@+/-]{{0,254}}{END}"},
    (Ready, "port"): {"anyOf": [_PORT, {"type": "null"}]},
    (Ready, "timeout"): _DURATION,
    (Vm, "name"): NAME,
    (Vm, "image"): NAME,
    (Vm, "image_id"): _IDENTITY,
    (Vm, "image_digest"): _DIGEST,
    (Vm, "kernel"): NAME,
    (Vm, "kernel_id"): _IDENTITY,
    (Vm, "cpus"): {"type": "integer", "minimum": 1, "maximum": 1024},
    (Vm, "memory"): _SIZE,
    (Vm, "disk"): _SIZE,
    (Vm, "network"): NAME,
    (Vm, "user"): USER,
    (Vm, "ttl"): {"anyOf": [_DURATION, {"type": "null"}]},
    (Dependency, "vm"): NAME,
    (Rule, "name"): {"type": "string", "pattern": f"^[A-Za-z0-9._*?\\[\\]!-]{{1,128}}{END}"},
    (Rule, "newest"): {"type": "integer", "minimum": 0, "maximum": 1 << 30},
    (Rule, "unused_for"): {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1e9}, {"type": "null"}]},
    (Limits, "max_used"): _MAYBE_BYTES,
    (Limits, "min_free"): _MAYBE_BYTES,
    (Limits, "min_free_part"): {"anyOf": [_PART, {"type": "null"}]},
    (Limits, "reserved"): _BYTES,
    (Watermarks, "start"): _PART,
    (Watermarks, "stop"): _PART,
    (Safety, "min_age"): {"type": "number", "minimum": 0, "maximum": 1e9},
    (Safety, "max_delete"): _PART,
    (Controller, "resync"): {"type": "number", "minimum": 1, "maximum": 1e9},
    (Controller, "max_delete"): {"type": "number", "minimum": 0, "maximum": 1},
}


def schema(kind: Any) -> Schema:
    """The schema of what `model.codec.from_json` takes for a `kind`, with every class written out in place."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(arg) for arg in args]}
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": schema(args[0])}
        return {"type": "array", "prefixItems": list(map(schema, args)), "minItems": len(args), "maxItems": len(args)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys = NAME if dataclasses.is_dataclass(args[1]) else TEXT
        return {"type": "object", "propertyNames": keys, "additionalProperties": schema(args[1])}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind)
    if kind is type(None):
        return {"type": "null"}
    return _scalar(kind)


def _object(kind: type) -> Schema:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    properties = {f.name: _FIELDS.get((kind, f.name)) or schema(hints[f.name]) for f in fields}
    if (tag := getattr(kind, TAG, None)) is not None:
        required.insert(0, TAG)
        properties = {TAG: {"const": tag}, **properties}
    found: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**found, "required": required} if required else found


def _scalar(kind: type) -> Schema:
    if issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if issubclass(kind, IPv4Address):
        return {"type": "string", "pattern": f"^{_ADDRESS}{END}"}
    if issubclass(kind, IPv4Network):
        return {"type": "string", "pattern": f"^{_ADDRESS}/(3[0-2]|[12]?[0-9]){END}"}
    if issubclass(kind, IPv6Network):
        return {"type": "string", "pattern": f"^fd[0-9a-f]{{2}}(:[0-9a-f]{{1,4}}){{0,3}}::/64{END}"}
    if kind is float:
        # JSON's integers are endless, and those that a float cannot hold are no ValueError.
        return {"type": "number", "minimum": -1e15, "maximum": 1e15}
    if kind is str:
        return TEXT
    names: dict[type, str] = {bool: "boolean", int: "integer"}
    return {"type": names[kind]} if kind in names else {}
