"""Parameters: declared and typed in the file, given by `--set` or the environment, used as `${name}`.

Filling in happens on parsed words, never on the text of the file, so that no value can change the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.spec.problems import Path, did_you_mean, quote
from reconciler.spec.tree import Document, ListNode, MapNode, Node, ScalarNode, plain

ENVIRONMENT_PREFIX = "BANGER_PARAM_"
MAX_VALUE = 1024
MAX_FILLED = 4 * 1024**2
_TYPES: Mapping[str, type] = {"string": str, "int": int, "bool": bool}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
# `$${` stands for `${`; a `${` without its `}` is caught by the last branch.
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")

Value = str | int | bool


@dataclass(frozen=True, slots=True)
class Parameters:
    """What `${name}` stands for; None for a name whose declaration or value was already reported."""

    values: Mapping[str, Value | None]


def resolve(document: Document, overrides: Mapping[str, str], env: Mapping[str, str]) -> Parameters:
    """The value of each declared parameter: from `overrides`, else `env`, else its default.

    In `env`, `BANGER_PARAM_tag` and then `BANGER_PARAM_TAG` are looked up. What is wrong is added to the document.
    """
    section = document.find(("params",))
    declared = section.members if isinstance(section, MapNode) else {}
    values: dict[str, Value | None] = {}
    for name, member in declared.items():
        values[name] = _value(document, name, plain(member.value), overrides, env)
    for name in sorted(set(overrides) - set(declared)):
        document.report(
            ("params",), f"--set {quote(name)} names no parameter of this file", did_you_mean(name, declared)
        )
    return Parameters(values)


def _value(
    document: Document, name: str, declaration: object, overrides: Mapping[str, str], env: Mapping[str, str]
) -> Value | None:
    path: Path = ("params", name)
    kind = declaration.get("type") if isinstance(declaration, dict) else None
    if not isinstance(declaration, dict) or not isinstance(kind, str) or kind not in _TYPES or document.is_bad(path):
        return None  # the schema says what a declaration looks like
    sources = (
        (overrides.get(name), f"--set {name}"),
        *((env.get(variable), variable) for variable in (ENVIRONMENT_PREFIX + name, ENVIRONMENT_PREFIX + name.upper())),
    )
    for given, source in sources:
        if given is not None:
            return _convert(document, path, kind, given, source)
    default = declaration.get("default")
    if "default" not in declaration:
        document.report(path, "has no value", f"give it a default, or --set {name}=VALUE", key=True)
        return None
    if type(default) is not _TYPES[kind]:
        return None  # the schema says which default fits the type
    assert isinstance(default, (str, int))
    return default


def _convert(document: Document, path: Path, kind: str, given: str, source: str) -> Value | None:
    """A value from outside in its declared type. It is never shown: an environment may hold secrets."""
    if len(given) > MAX_VALUE or not given.isprintable():
        reason = f"is longer than {MAX_VALUE} characters" if len(given) > MAX_VALUE else "holds control characters"
        document.report(path, f"the value of {source} {reason}", "give one line of text", key=True)
        return None
    if kind == "string":
        return given
    if kind == "int" and _INTEGER.fullmatch(given) and given.isascii():
        return int(given)
    if kind == "bool" and given in ("true", "false"):
        return given == "true"
    expected = "a whole number" if kind == "int" else "true or false"
    document.report(path, f"the value of {source} is not {expected}", "the file declares this type", key=True)
    return None


def fill_in(document: Document, parameters: Parameters) -> None:
    """Replaces `${name}` in every value outside of `params`. What is wrong is added to the document."""
    if isinstance(document.root, MapNode):
        filler = _Filler(document, parameters)
        for name, member in document.root.members.items():
            if name != "params":
                filler.walk(member.value, (name,))


class _Filler:
    """One walk over the tree. Shared nodes are filled once, and their text is counted at each use."""

    def __init__(self, document: Document, parameters: Parameters) -> None:
        self._document = document
        self._values = parameters.values
        self._characters = 0
        self._done: set[int] = set()

    def walk(self, node: Node, path: Path) -> None:
        if self._document.full or self._characters > MAX_FILLED:
            return
        if isinstance(node, MapNode):
            for key, member in node.members.items():
                self.walk(member.value, (*path, key))
        elif isinstance(node, ListNode):
            for index, item in enumerate(node.items):
                self.walk(item, (*path, index))
        elif isinstance(node, ScalarNode) and isinstance(node.value, str):
            if "${" in node.value and id(node) not in self._done and not node.bad:
                self._done.add(id(node))
                self._fill(node, path)
            if node.filled:
                self._count(node, path)

    def _count(self, node: ScalarNode, path: Path) -> None:
        self._characters += len(str(node.value))
        if self._characters > MAX_FILLED:
            # Nothing may look at what was filled in so far, each piece of which is fine.
            self._document.root.bad = True
            self._document.report(path, "the parameters fill in more than 4 MiB of text", "use shorter values")

    def _fill(self, node: ScalarNode, path: Path) -> None:
        text = str(node.value)
        whole = _REFERENCE.fullmatch(text)
        if whole is not None and whole[1] is not None:
            value = self._lookup(node, path, whole[1])
            node.value, node.filled = value if value is not None else text, True
            return
        parts = []
        end = length = 0
        for match in _REFERENCE.finditer(text):
            parts += [text[end : match.start()], self._text(node, path, match)]
            end = match.end()
            length += len(parts[-1])
            if length + self._characters > MAX_FILLED:
                break
        parts.append(text[end:])
        node.value, node.filled = "".join(parts), True

    def _text(self, node: ScalarNode, path: Path, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            self._refuse(node, path, "'${' without its '}'", "write ${name}, or $${ for the two characters")
            return ""
        value = self._lookup(node, path, match[1])
        if value is None:
            return ""
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _lookup(self, node: ScalarNode, path: Path, name: str) -> Value | None:
        if name not in self._values:
            hint = (
                did_you_mean(name, self._values)
                or f"declare it under `params`, or write $${{{name[:40]}}} for the text"
            )
            self._refuse(node, path, f"{quote('${' + name + '}')} is not declared", hint)
            return None
        value = self._values[name]
        node.bad = node.bad or value is None
        return value

    def _refuse(self, node: ScalarNode, path: Path, message: str, hint: str) -> None:
        if not node.bad:
            self._document.report(path, message, hint)
        node.bad = True
