"""YAML to a tree with positions, within bounds.

Works on the parser's events, never on its nodes: the parser hands out one event at a time, so that the limits on
depth and size end the work before it is done, and nothing here or in PyYAML recurses over the input. What the
format leaves out on purpose (tags, directives, merge keys, several documents) is an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from reconciler.spec import scalars
from reconciler.spec.problems import Problem, SpecError, quote
from reconciler.spec.tree import Document, ListNode, MapNode, Member, Node, ScalarNode

MAX_DEPTH = 32
MAX_WEIGHT = 16_000
MAX_KEY = 128
_CHARACTERS_PER_WEIGHT = 40

# libyaml where PyYAML was built with it: six times as fast. The events are the same.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The c-printable production of YAML 1.2 (section 5.1), and no byte order mark in mid-file.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "starts with a byte order mark", "save the file as UTF-8 without BOM"),
    (b"\xff\xfe", "is UTF-16", "save the file as UTF-8"),
    (b"\xfe\xff", "is UTF-16", "save the file as UTF-8"),
)
_ADVICE = (
    ("character '\\t'", "indent with spaces, not with tabs"),
    ("cannot start any token", "quote text that starts with this character; indent with spaces, not with tabs"),
    ("mapping values are not allowed", "quote text that holds ': ', and check the indentation"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("did not find expected key", "check the indentation, and quotes and commas before this place"),
    ("did not find expected '-'", "check the indentation of this list"),
    ("did not find expected ',' or", "a bracket before this place is not closed"),
    ("unexpected end of stream", "a quote or bracket is not closed"),
)


def parse(data: bytes, file: str) -> Document:
    """The tree of the one document in `data`, and the problems that still let the rest be checked.

    Raises SpecError if there is no tree: bytes that are not text, broken syntax, a limit that was reached, or too many problems.
    """
    return _Composer(_decode(data, file), file).document()


def _decode(data: bytes, file: str) -> str:
    def refuse(offset: int, message: str, hint: str) -> SpecError:
        before = data[:offset]
        line_start = before.rfind(b"\n") + 1
        column = len(before[line_start:].decode(errors="replace")) + 1
        return SpecError([Problem(file, before.count(b"\n") + 1, column, "", message, hint)])

    for mark, message, hint in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            raise refuse(0, message, hint)
    if (nul := data.find(b"\0")) >= 0:
        raise refuse(nul, "a NUL byte", "the file is damaged or no text; restore it")
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        raise refuse(
            problem.start, f"the byte 0x{data[problem.start]:02x} is not UTF-8", "save the file as UTF-8"
        ) from None
    if match := _UNPRINTABLE.search(text):
        raise refuse(len(text[: match.start()].encode()), f"the control character U+{ord(match[0]):04X}", "remove it")
    if match := _DIRECTIVE.search(text):
        # Besides: the parser compares each %TAG with all before it, which a megabyte of them turns into minutes.
        raise refuse(len(text[: match.start()].encode()), "a line that starts with '%'", "leave YAML directives out")
    return text


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that waits for its value. What stands under a key that is no key is not looked at."""

    text: str
    line: int
    column: int
    valid: bool


@dataclass(slots=True)
class _Frame:
    """A collection that is being read."""

    node: ListNode | MapNode
    anchor: str | None
    key: _Key | None = None


class _Composer:
    """Builds nodes from events with a stack of its own."""

    def __init__(self, text: str, file: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._result = Document(file, MapNode(1, 1))
        self._stack: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._root: Node | None = None

    def document(self) -> Document:
        try:
            for event in self._events:
                self._take(event)
        except yaml.MarkedYAMLError as problem:
            raise self._syntax_error(problem) from None
        except yaml.YAMLError as problem:
            raise self._fatal(1, 1, str(problem).partition("\n")[0]) from None
        if self._root is None or (isinstance(self._root, ScalarNode) and self._root.value is None):
            raise self._fatal(1, 1, "the file is empty", "write one with `banger init`")
        self._result.root = self._root
        return self._result

    def _take(self, event: yaml.Event) -> None:
        assert event.start_mark is not None  # both parsers mark every event
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            self._add(self._scalar(event, line, column), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(str(event.anchor), line, column), None)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._open(event, line, column)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            frame = self._stack.pop()
            self._add(frame.node, frame.anchor)
        elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            raise self._fatal(line, column, "a second document", "a file is one environment; write one file each")

    def _open(self, event: yaml.CollectionStartEvent, line: int, column: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise self._fatal(line, column, f"nested deeper than {MAX_DEPTH} levels")
        node = MapNode(line, column) if isinstance(event, yaml.MappingStartEvent) else ListNode(line, column)
        node.bad = self._has_tag(event, line, column)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(node, event.anchor))

    def _scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> ScalarNode:
        text = event.value
        weight = 1 + len(text) // _CHARACTERS_PER_WEIGHT
        node = ScalarNode(line, column, weight, bad=self._has_tag(event, line, column), value=text, text=text)
        if not event.style:  # unquoted, and no block
            try:
                node.value = scalars.resolve(text)
            except scalars.ScalarError as problem:
                hint = scalars.in_quotes(text) if self._wants_key() and text != "<<" else problem.hint
                self._report(line, column, f"{quote(text)} {problem}", hint)
                node.bad = True
        return node

    def _alias(self, anchor: str, line: int, column: int) -> Node:
        if anchor not in self._anchors:
            raise self._fatal(line, column, f"the alias {quote('*' + anchor)} has no anchor before it")
        node = self._anchors[anchor]
        if node is None:
            raise self._fatal(line, column, f"the alias {quote('*' + anchor)} stands inside of what it repeats")
        if len(self._stack) + node.height >= MAX_DEPTH:
            raise self._fatal(line, column, f"the alias {quote('*' + anchor)} nests deeper than {MAX_DEPTH} levels")
        return node

    def _add(self, node: Node, anchor: str | None) -> None:
        """Puts a finished node where the innermost open collection wants it."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        parent = frame.node
        if self._wants_key():
            frame.key = self._key(node)
            return
        parent.weight += node.weight
        parent.height = max(parent.height, node.height + 1)
        # A finished collection was counted by its parts; an alias to it is counted whole, once more.
        if parent.weight + self._open_weight() > MAX_WEIGHT:
            raise self._fatal(
                node.line, node.column, f"more than {MAX_WEIGHT} values", "split the file, or use fewer aliases"
            )
        if isinstance(parent, ListNode):
            parent.items.append(node)
            return
        key, frame.key = frame.key, None
        assert key is not None
        first = parent.members.get(key.text)
        if first is not None:
            message = f"the key {quote(key.text)} stands twice: on line {first.line} and on line {key.line}"
            self._report(key.line, key.column, message, "keep one of them")
            first.value.bad = True
        elif key.valid:
            parent.members[key.text] = Member(key.line, key.column, node)

    def _open_weight(self) -> int:
        return sum(frame.node.weight for frame in self._stack[:-1])

    def _key(self, node: Node) -> _Key:
        if not isinstance(node, ScalarNode):
            raise self._fatal(node.line, node.column, "a list or mapping as a key", "a key is one word")
        if len(node.text) > MAX_KEY:
            raise self._fatal(node.line, node.column, f"a key of {len(node.text)} characters", f"at most {MAX_KEY}")
        valid = isinstance(node.value, str) and not node.bad
        if not valid and not node.bad:
            self._report(
                node.line, node.column, f"the key {quote(node.text)} is not text", scalars.in_quotes(node.text)
            )
        return _Key(node.text, node.line, node.column, valid)

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].node, MapNode) and self._stack[-1].key is None

    def _has_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int, column: int) -> bool:
        """Whether the value has an explicit tag, which is reported."""
        if event.tag is None:
            return False
        self._report(line, column, f"the tag {quote(event.tag)}", "tags have no meaning here; leave it out")
        return True

    def _report(self, line: int, column: int, message: str, hint: str = "") -> None:
        self._result.problems.append(Problem(self._result.file, line, column, "", message, hint))
        if self._result.full:
            raise SpecError(self._result.problems)

    def _fatal(self, line: int, column: int, message: str, hint: str = "") -> SpecError:
        """An error after which there is no tree; what was found before goes along."""
        self._report(line, column, message, hint)
        return SpecError(self._result.problems)

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> SpecError:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        message = error.problem or "not YAML"
        if error.context and error.context_mark is not None:
            message += f" {error.context} that starts on line {error.context_mark.line + 1}"
        hint = next((advice for fragment, advice in _ADVICE if fragment in message), "")
        return self._fatal(line, column, f"no valid YAML: {message}", hint)
