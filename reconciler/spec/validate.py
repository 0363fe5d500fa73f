"""Holds a tree against the published schema, and says in words of the file what does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from reconciler.spec.problems import MAX_QUOTED, Path, did_you_mean, quote
from reconciler.spec.published import expand, schema
from reconciler.spec.scalars import in_quotes
from reconciler.spec.tree import Document, ScalarNode, plain

_BOUNDS = frozenset({"maxItems", "maxProperties"})
_COUNTED = {"maxItems": "entries", "maxProperties": "entries", "maxLength": "characters"}
_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


@dataclass(frozen=True, slots=True)
class _Failure:
    """One error of the validator: the `value` at `path` does not keep to `rule`, whose argument is `limit`."""

    path: Path
    rule: str
    limit: Any
    value: Any
    schema: Mapping[str, Any]
    message: str
    of_name: bool

    @classmethod
    def of(cls, error: ValidationError) -> _Failure:
        facts: Any = error  # the library types each attribute as possibly unset; those of a finished error are set
        return cls(
            path=tuple(facts.absolute_path),
            rule=facts.validator,
            limit=facts.validator_value,
            value=facts.instance,
            schema=facts.schema,
            message=facts.message,
            of_name="propertyNames" in facts.absolute_schema_path,
        )


def check(document: Document, which: str = "banger") -> None:
    """Adds a problem for everything that a schema does not allow, and marks the values that are of no use."""
    if document.root.bad:
        return
    useless: list[Path] = []
    for error in _validator(which).iter_errors(plain(document.root)):
        failure = _Failure.of(error)
        if document.is_bad(failure.path) or (failure.path in useless and not failure.of_name):
            continue
        useless += _explain(document, failure)
        if document.full or failure.rule in _BOUNDS:
            break  # the schema names a bound before the content, which is not worth the time then
    # Not before: an alias shares its node, and each of its places is to be told.
    for path in useless:
        document.mark_bad(path)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # In a Python expression `$` also matches before a final line break; in a JSON schema (ECMA 262) it does not.
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


def _pattern(_validator: Validator, pattern: str, instance: object, _schema: object) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError(f"does not match {pattern}")


@cache
def _validator(which: str) -> Validator:
    # For a schema 2.0 is an integer; the model wants one that Python agrees to.
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _checker, value: type(value) is int)
    kind: Any = extend(  # type: ignore[no-untyped-call]  # the stubs leave it bare
        Draft202012Validator, validators={"pattern": _pattern}, type_checker=types
    )
    result: Validator = kind(expand(schema(which)))
    return result


def _explain(document: Document, failure: _Failure) -> list[Path]:
    """Reports one failure. Returns the paths whose values nobody should look at any more."""
    path = failure.path
    if failure.of_name:
        path = (*path, str(failure.value))
        document.report(
            path, f"the name {quote(failure.value)} is not allowed", f"write {_expected(failure.schema)}", key=True
        )
        return [path]
    match failure.rule:
        case "additionalProperties" | "required" | "dependentRequired" | "oneOf":
            return _explain_keys(document, failure)
        case "type":
            message, hint = _wrong_type(document, failure)
        case "pattern":
            message, hint = f"{document.shown(path)} is not {_expected(failure.schema)}", ""
        case "enum" | "const":
            message, hint = _not_listed(document, failure)
        case "minimum" | "maximum":
            message = f"{document.shown(path)} is too {'small' if failure.rule == 'minimum' else 'large'}"
            hint = f"write {failure.schema['minimum']} to {failure.schema['maximum']}"
        case rule if rule in _COUNTED:
            message = f"has {len(failure.value)} {_COUNTED[rule]}"
            hint = f"at most {failure.limit} are allowed"
        case _:
            message, hint = quote(failure.message), ""
    document.report(path, message, hint)
    return [path]


def _explain_keys(document: Document, failure: _Failure) -> list[Path]:
    """Reports keys that are too many or missing. Returns the paths whose values nobody should look at any more."""
    path = failure.path
    match failure.rule:
        case "oneOf":
            return _report_choice(document, failure)
        case "additionalProperties":
            _report_unknown_keys(document, failure)
        case "required":
            # One failure comes for each missing key, and does not say which; equal problems count once.
            for key in failure.limit:
                if key not in failure.value:
                    document.report(path, f"{key!r} is missing", _example(failure.schema, key), key=True)
        case "dependentRequired":
            for key, needed in failure.limit.items():
                for missing in needed if key in failure.value else ():
                    if missing not in failure.value:
                        hint = _example(failure.schema, missing)
                        document.report((*path, key), f"{missing!r} is missing beside it", hint, key=True)
    return []


def _expected(schema: Mapping[str, Any]) -> str:
    """What a pattern means in words: each pattern of the schema has an `x-expect` beside it."""
    return str(schema.get("x-expect", f"of the form {schema.get('pattern')}"))


def _example(schema: Mapping[str, Any], key: str) -> str:
    """A hint at a key that is missing, in the flow style of YAML."""
    examples = schema["properties"][key].get("examples")
    return f"for example `{key}: {json.dumps(examples[0]).replace(chr(34), '')}`" if examples else ""


def _report_unknown_keys(document: Document, failure: _Failure) -> None:
    known = failure.schema["properties"]
    refused = failure.schema.get("x-refused", {})
    for key in failure.value:
        if key not in known and not document.full:
            hint = refused.get(key) or did_you_mean(key, known)
            document.report((*failure.path, key), f"unknown key {quote(key)}", hint, key=True)


def _report_choice(document: Document, failure: _Failure) -> list[Path]:
    """Each branch of a `oneOf` in our schema requires one key: exactly one of these is to be there."""
    choices = [branch["required"][0] for branch in failure.limit]
    given = [key for key in choices if key in failure.value]
    if not given:
        either = " or ".join(map(repr, choices))
        document.report(failure.path, f"{either} is missing", _example(failure.schema, choices[0]), key=True)
    for key in given[1:]:
        document.report((*failure.path, key), f"{key!r} besides {given[0]!r}", "keep one of them", key=True)
    return [(*failure.path, key) for key in given]


def _wrong_type(document: Document, failure: _Failure) -> tuple[str, str]:
    wanted = failure.limit if isinstance(failure.limit, list) else [failure.limit]
    node = document.find(failure.path)
    message = f"expected {' or '.join(_TYPES[kind] for kind in wanted)}, found {_found(document, failure)}"
    if not isinstance(node, ScalarNode):
        return message, ""
    if node.value is None:
        empty = {"object": "{}", "array": "[]"}.get(wanted[0])
        return (
            message,
            f"write {empty} if it is meant to be empty" if empty else "give it a value, or leave the key out",
        )
    if node.filled:
        return message, "declare the parameter with the type that is expected here"
    if "enum" in failure.schema:
        return message, f"write {' or '.join(map(str, failure.schema['enum']))}"
    if wanted == ["string"]:
        pattern = failure.schema.get("pattern", "")
        return message, in_quotes(node.text) if _compiled(pattern).search(
            node.text
        ) else f"write {_expected(failure.schema)}"
    if wanted == ["integer"] and re.fullmatch(r"[1-9][0-9]{0,17}", node.text):
        return message, "write it without quotes"
    if wanted == ["boolean"] and node.text.lower() in ("true", "false"):
        return message, "write it in lower case, without quotes"
    return message, ""


def _found(document: Document, failure: _Failure) -> str:
    node = document.find(failure.path)
    if failure.value is None:
        return "nothing"
    if isinstance(failure.value, str) or not isinstance(node, ScalarNode):
        return f"{'the text ' if isinstance(failure.value, str) else ''}{document.shown(failure.path)}"
    kind = "boolean" if isinstance(failure.value, bool) else "number"
    return f"a {kind} from a parameter" if node.filled else f"the {kind} {node.text[:MAX_QUOTED]}"


def _not_listed(document: Document, failure: _Failure) -> tuple[str, str]:
    shown = document.shown(failure.path)
    if failure.rule == "const":
        return f"{shown} is not {failure.limit}", f"write {failure.limit}"
    hint = did_you_mean(failure.value, failure.limit) if isinstance(failure.value, str) else ""
    return f"{shown} is not {' or '.join(failure.limit)}", hint if hint.startswith("did") else ""
