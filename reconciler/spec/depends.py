"""`dependsOn`: names followed to the VMs they stand for, and refused where VMs would wait for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.model.vm import Dependency, DependsOn
from reconciler.spec.defaults import look_up
from reconciler.spec.problems import did_you_mean, quote
from reconciler.spec.tree import Document


def resolve_dependencies(
    document: Document, names: Sequence[str], expansion: Mapping[str, Sequence[str]]
) -> dict[str, tuple[Dependency, ...]]:
    """By name in the file, what its VMs depend on, sorted. What is wrong is added to the document.

    Parameters
    ----------
    names: all VMs of the file, including what is declared wrongly: that is another problem.
    expansion: the VMs that a name of the file makes; absent for one that is wrong.
    """
    wanted = {name: _wanted(document, name, names, expansion) for name in names}
    _refuse_cycles(document, wanted)
    return {
        name: tuple(
            Dependency(vm=vm, on=DependsOn(on))
            for vm, on in sorted((vm, on) for other, on in given.items() for vm in expansion.get(other, ()))
        )
        for name, given in wanted.items()
    }


def _wanted(
    document: Document, name: str, names: Sequence[str], expansion: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    given = look_up(document, ("vms", name, "dependsOn"))
    if not given.usable:
        return {}
    found = {}
    for other, on in given.value.items():
        path = ("vms", name, "dependsOn", other)
        if document.is_bad(path) or document.full:
            continue
        if other in names:
            found[other] = on
            continue
        maker = next((origin for origin, made in expansion.items() if other in made), None)
        hint = f"write {maker}, which means all of its VMs" if maker else did_you_mean(other, names)
        document.report(path, f"there is no VM {quote(other)} under `vms`", hint, key=True)
    return found


def _refuse_cycles(document: Document, wanted: Mapping[str, Mapping[str, str]]) -> None:
    """One problem for each group of VMs that wait for each other, with the whole way round.

    Depth first without recursion: a chain may be as long as the file.
    """
    done: set[str] = set()
    for start in wanted:
        trail: list[str] = []
        todo: list[tuple[str, bool]] = [(start, False)]
        while todo:
            name, left = todo.pop()
            if left:
                trail.pop()
                done.add(name)
            elif name in trail:
                circle = [*trail[trail.index(name) :], name]
                path = ("vms", trail[-1], "dependsOn", name)
                message = "waits for itself" if len(circle) == 2 else f"VMs wait for each other: {_shown(circle)}"
                document.report(path, message, "take one of them out", key=True)
            elif name not in done:
                trail.append(name)
                todo.append((name, True))
                todo += [(other, False) for other in reversed(list(wanted[name]))]


def _shown(circle: Sequence[str]) -> str:
    names = circle if len(circle) <= 8 else [*circle[:4], "…", *circle[-3:]]
    return " → ".join(names)
