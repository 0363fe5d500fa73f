"""The section `cache` of a file: its retention policy."""

from __future__ import annotations

from reconciler.lib.units import parse_size
from reconciler.model.retention import CachePolicy, EntryKind, Limits, Rule, Safety, Watermarks
from reconciler.spec import published
from reconciler.spec.defaults import Given, look_up
from reconciler.spec.problems import Path
from reconciler.spec.tree import Document, ListNode
from reconciler.spec.values import fraction, seconds

_SECTION = "cache"
_AGE = (0.0, 3650 * 86400.0)
_TRASH_SECONDS = 60.0


def resolve_cache(document: Document) -> CachePolicy | None:
    """The policy; None without the section, or after adding at least one problem to the document."""
    section = document.find((_SECTION,))
    if section is None or section.bad:
        return None
    limits, watermarks, safety = _limits(document), _watermarks(document), _safety(document)
    rules = _rules(document)
    if limits is None or watermarks is None or safety is None or rules is None:
        return None
    return CachePolicy(limits=limits, watermarks=watermarks, safety=safety, rules=rules)


def _limits(document: Document) -> Limits | None:
    given = {key: look_up(document, (_SECTION, "limits", key)) for key in ("maxUsed", "minFree", "reserved")}
    if any(value.written and not value.usable for value in given.values()):
        return None
    free = given["minFree"]
    part = fraction(document, free) if free.usable and str(free.value).endswith("%") else None
    most, least = _bytes(given["maxUsed"]), _bytes(given["reserved"]) or 0
    if most is not None and least > most:
        hint = "write no more than cache.limits.maxUsed"
        document.report(given["reserved"].path, f"{document.shown(given['reserved'].path)} is above the limit", hint)
        return None
    return Limits(
        max_used=most, min_free=None if part is not None else _bytes(free), min_free_part=part, reserved=least
    )


def _bytes(given: Given) -> int | None:
    """The schema has seen to its form."""
    return parse_size(str(given.value)) if given.usable else None


def _watermarks(document: Document) -> Watermarks | None:
    marks = _given(document, "watermarks", "cacheWatermarks")
    start, stop = fraction(document, marks["start"]), fraction(document, marks["stop"])
    if start is None or stop is None:
        return None
    if stop > start:
        place = marks["stop"] if marks["stop"].written else marks["start"]
        document.report(place.path, f"stop ({stop:.0%}) is above start ({start:.0%})", "write a stop below the start")
        return None
    return Watermarks(start=start, stop=stop)


def _safety(document: Document) -> Safety | None:
    given = _given(document, "safety", "cacheSafety")
    age, most = seconds(document, given["minAge"], *_AGE), fraction(document, given["maxDelete"])
    return None if age is None or most is None else Safety(min_age=age, max_delete=most)


def _given(document: Document, key: str, definition: str) -> dict[str, Given]:
    default = published.defaults(definition)
    return {name: look_up(document, (_SECTION, key, name), default=value) for name, value in default.items()}


def _rules(document: Document) -> tuple[Rule, ...] | None:
    node = document.find((_SECTION, "rules"))
    if node is None:
        return ()
    if document.is_bad((_SECTION, "rules")) or not isinstance(node, ListNode):
        return None
    rules = [_rule(document, (_SECTION, "rules", number)) for number in range(len(node.items))]
    found = [rule for rule in rules if rule is not None]
    return tuple(found) if len(found) == len(rules) else None


def _rule(document: Document, path: Path) -> Rule | None:
    kind = look_up(document, (*path, "match", "kind"))
    name = look_up(document, (*path, "match", "name"), default="*")
    newest = look_up(document, (*path, "keep", "newest"), default=0)
    age = look_up(document, (*path, "expire", "unusedFor"))
    if not (kind.usable and name.usable and newest.usable) or document.is_bad(path):
        return None
    chosen = EntryKind(kind.value)
    # Whoever trashed something by mistake is to have the time to notice.
    low = _AGE[0] if chosen.made_again else _TRASH_SECONDS
    unused = seconds(document, age, low, _AGE[1])
    if age.written and unused is None:
        return None
    return Rule(kind=chosen, name=str(name.value), newest=int(newest.value), unused_for=unused)
