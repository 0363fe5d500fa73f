"""The options that commands share. Each has a variable: `--allow-recreate` is BANGER_ALLOW_RECREATE.

The variable is named after the option alone, not after the command: BANGER_TIMEOUT counts wherever there is a
`--timeout`. What the command line says goes before the variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from reconciler.lib.units import format_duration, parse_duration

if TYPE_CHECKING:
    from reconciler.api.service import Service

F = TypeVar("F", bound=Callable[..., Any] | click.Command)


class Output(StrEnum):
    """The form of what goes to stdout."""

    TABLE = "table"
    WIDE = "wide"
    """A table with more columns, where a command has them."""
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class Duration(click.ParamType[float]):
    """`90s` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class Setting(click.ParamType[tuple[str, str]]):
    """`key=value` as a pair."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, text


class VmName(click.ParamType[str]):
    """A reference to a VM: `dev`, `demo/dev` or `vm/dev`; shells complete it."""

    name = "vm"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from reconciler.cli import wire  # noqa: PLC0415  # only when a shell asks

        try:
            with wire.service(sweep=False) as service:
                vms = service.vms(None)
        except Exception:
            return []  # a shell that waits for a completion has no place for an error
        names = sorted({vm.name for vm in vms} | {f"{vm.environment}/{vm.name}" for vm in vms})
        qualified = "/" in incomplete
        return [CompletionItem(name) for name in names if name.startswith(incomplete) and ("/" in name) is qualified]


class NetworkName(click.ParamType[str]):
    """A reference to a network: `lab` or `demo/lab`; shells complete it."""

    name = "network"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from reconciler.cli import wire  # noqa: PLC0415  # only when a shell asks

        try:
            with wire.service(sweep=False) as service:
                networks = service.networks(None)
        except Exception:
            return []  # as for a VM
        names = sorted({n.name for n in networks} | {f"{n.environment}/{n.name}" for n in networks})
        qualified = "/" in incomplete
        return [CompletionItem(name) for name in names if name.startswith(incomplete) and ("/" in name) is qualified]


class _Listed(click.ParamType[str]):
    """Something that a service can list; shells complete it."""

    def words(self, service: Service) -> Iterable[str]:
        """Everything that may be written."""
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from reconciler.cli import wire  # noqa: PLC0415  # only when a shell asks

        try:
            with wire.service() as service:
                words = sorted(set(self.words(service)))
        except Exception:
            return []  # as for a VM
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class ImageName(_Listed):
    """A reference to an image of the cache: an id, `base` or `demo/base`."""

    name = "image"

    def words(self, service: Service) -> Iterable[str]:
        for item in service.images():
            yield item.id
            for name in item.names:
                yield from (name, name.partition("/")[2])


class TrashName(_Listed):
    """An entry of the trash, as `banger vm trash` lists them."""

    name = "entry"

    def words(self, service: Service) -> Iterable[str]:
        return (found.entry for found in service.trash())


def option(*declarations: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` with the variable that belongs to its long form."""
    longest = max((d.split("/")[0] for d in declarations if d.startswith("--")), key=len)
    variable = "BANGER_" + longest.removeprefix("--").replace("-", "_").upper()
    return click.option(*declarations, envvar=variable, show_envvar=True, **attributes)


def file_option(
    *, short: bool = True, text: str = "The file. [default: ./banger.yaml, then the system's]"
) -> Callable[[F], F]:
    names = ("-f", "--file", "file") if short else ("--file", "file")
    return option(*names, type=click.Path(path_type=Path), metavar="FILE", help=text)


def output_option(*, wide: bool = False) -> Callable[[F], F]:
    """`-o`. `wide`: whether the command has a table with more columns as well."""
    forms = [form.value for form in Output if wide or form is not Output.WIDE]
    return option(
        "-o",
        "--output",
        type=click.Choice(forms),
        default=Output.TABLE.value,
        show_default=True,
        metavar="FORM",
        callback=lambda ctx, param, value: Output(value),
        help=f"The form of the output: {', '.join(forms)}.",
    )


def wait_options(what: str) -> Callable[[F], F]:
    """`--wait/--no-wait` and `--timeout`."""

    def decorate(command: F) -> F:
        command = timeout_option()(command)
        waiting: F = option("--wait/--no-wait", default=True, help=f"Wait until {what}. [default: wait]")(command)
        return waiting

    return decorate


def timeout_option() -> Callable[[F], F]:
    return option(
        "--timeout",
        type=Duration(),
        metavar="DURATION",
        help=f"How long to wait for readiness, such as {format_duration(90)}. [default: each VM's own ready.timeout]",
    )


def set_option() -> Callable[[F], F]:
    return option(
        "--set",
        "settings",
        type=Setting(),
        multiple=True,
        metavar="KEY=VALUE",
        help="Give a declared parameter a value; may be repeated.",
    )


def yes_option() -> Callable[[F], F]:
    return option("-y", "--yes", is_flag=True, help="Do not ask, even on a terminal.")


def quiet_option() -> Callable[[F], F]:
    return option("-q", "--quiet", is_flag=True, help="Print nothing but errors and asked-for data.")


def allow_recreate_option() -> Callable[[F], F]:
    return option(
        "--allow-recreate", is_flag=True, help="Allow changes that need a new root disk (the old is trashed)."
    )


def parallel_option() -> Callable[[F], F]:
    return option(
        "--parallel", type=click.IntRange(1, 64), default=8, show_default=True, help="How many actions run at once."
    )


def all_option() -> Callable[[F], F]:
    return option("-A", "--all", "everywhere", is_flag=True, help="All environments, whatever the file.")


def vm_argument() -> Callable[[F], F]:
    return click.argument("vm", type=VmName())
