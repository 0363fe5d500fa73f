"""Writes docs/spec.md from the schema: `python -m reconciler.spec.reference > docs/spec.md`. Pure but for its main."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.spec.published import expand, schema

_INTRODUCTION = """\
# banger.yaml

Generated from `schemas/banger.schema.json` by `python -m reconciler.spec.reference`. Change the schema, not this page.

{description}

## Rules of the format

* UTF-8 without byte order mark, at most 1 MiB, one document, at most {depth} levels and {weight} values (aliases count
  as often as they are used; long text counts as several).
* Unknown and duplicate keys are errors. So are words that YAML 1.1 and 1.2 read differently (`no`, `on`, `012`, `0o14`,
  `52:54:00`, `2024-01-01`, `1e3`): quote them.
* Anchors and aliases work. Tags, directives and merge keys (`<<`) are refused; what VMs share belongs under `defaults`.
* Every error of a file is told at once, as `file:line:column: path: what is wrong; what would be right`.
* A value comes from the VM, else from `defaults`, else from the column *Default* below.

## What a change costs

| Change | Meaning |
| --- | --- |
| none | nothing happens to the VM |
| live | applied to the running VM |
| restart | takes effect with a restart of the VM |
| recreate | needs a new root disk, so `--allow-recreate`; volumes are kept |
"""

_SECTIONS = (
    ("params", "param", "params.NAME"),
    ("networks", "network", "networks.NAME"),
    ("", "egress", "networks.NAME.egress[]"),
    ("catalogs", "catalog", "catalogs.NAME"),
    ("kernels", "kernel", "kernels.NAME"),
    ("", "debianKernel", "kernels.NAME.debian"),
    ("", "blob", "kernels.NAME.modules"),
    ("images", "image", "images.NAME"),
    ("", "debianImage", "images.NAME.debian"),
    ("", "aptSource", "images.NAME.debian.sources[]"),
    ("", "step", "images.NAME.steps[]"),
    ("", "copy", "images.NAME.steps[].copy"),
    ("", "ociImage", "images.NAME.oci"),
    ("vms", "vm", "vms.NAME"),
    ("", "volume", "vms.NAME.volumes.NAME"),
    ("", "file", "vms.NAME.files[]"),
    ("", "secret", "vms.NAME.secrets.NAME"),
    ("", "provisionStep", "vms.NAME.provision[]"),
    ("", "ready", "vms.NAME.ready"),
    ("", "workspace", "vms.NAME.workspace"),
    ("", "cache", "cache"),
    ("", "cacheLimits", "cache.limits"),
    ("", "cacheWatermarks", "cache.watermarks"),
    ("", "cacheSafety", "cache.safety"),
    ("", "cacheRule", "cache.rules[]"),
    ("", "cacheRule.match", "cache.rules[].match"),
    ("", "cacheRule.keep", "cache.rules[].keep"),
    ("", "cacheRule.expire", "cache.rules[].expire"),
    ("", "controller", "controller"),
)


def render(*, depth: int, weight: int) -> str:
    """The page. `depth` and `weight` are the parser's limits, in levels and in values."""
    root = schema()
    parts = [_INTRODUCTION.format(description=root["description"], depth=depth, weight=weight)]
    parts.append("## Top level\n\n" + "\n".join(_table(expand({k: v for k, v in root.items() if k != "$defs"}))) + "\n")
    for key, definition, title in _SECTIONS:
        first, *below = definition.split(".")
        described = expand(root["$defs"][first])
        for part in below:
            described = described["properties"][part]
        section = root["properties"][key] if key else {}
        text = [f"## {title}", "", described["description"], ""]
        if names := section.get("propertyNames"):
            text += [f"A name is {expand(names)['x-expect']}. There are at most {section['maxProperties']}.", ""]
        parts.append("\n".join([*text, *_table(described)]) + "\n")
    defaults = root["$defs"]["defaults"]
    refused = [f"* `{key}`: {reason}" for key, reason in defaults["x-refused"].items()]
    allowed = ", ".join(f"`{key}`" for key in defaults["properties"])
    text = ["## defaults", "", defaults["description"], "", f"Allowed: {allowed}.", "", "Not allowed:", "", *refused]
    parts.append("\n".join(text) + "\n")
    return "\n".join(parts)


def _table(described: Mapping[str, Any]) -> Iterator[str]:
    required = described.get("required", ())
    choices = [branch["required"][0] for branch in described.get("oneOf", ())]
    one = "required" if len(choices) == 1 else "exactly one"
    yield "| Key | Type | Default | Change | Meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for key, field in described["properties"].items():
        default = (
            one
            if key in choices
            else "required"
            if key in required
            else f"`{_inline(field['default'])}`"
            if "default" in field
            else ""
        )
        example = f" Example: `{_inline(field['examples'][0])}`." if "examples" in field else ""
        cells = (f"`{key}`", _type(field), default, field.get("x-change", ""), field["description"] + example)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    names = {
        "object": "mapping",
        "array": "list",
        "string": "text",
        "integer": "whole number",
        "boolean": "true, false",
    }
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    bounds = f", {field['minimum']} to {field['maximum']}" if "minimum" in field else ""
    return " or ".join(names[kind] for kind in kinds) + bounds


def _inline(value: Any) -> str:
    """A value in the flow style of YAML."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


if __name__ == "__main__":
    from reconciler.spec.load import MAX_DEPTH, MAX_WEIGHT

    sys.stdout.write(render(depth=MAX_DEPTH, weight=MAX_WEIGHT))
