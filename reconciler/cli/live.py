"""Progress on a terminal: a line per running step that keeps moving, finished ones above it. Imports rich."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TimeElapsedColumn
from rich.text import Text

from reconciler.cli.steplines import end_line, label, retry_line
from reconciler.cli.terminal import harmless
from reconciler.model.outcome import Outcome
from reconciler.model.plan import Step
from reconciler.model.status import ObjectStatus

_BAR_WIDTH = 24
_NAMES_SHOWN = 3


class Live:
    """A reporter that draws on stderr from its first message until it is left.

    Nothing is drawn before there is something to tell, so that a question can be asked in between.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            _Words(),
            _Bar(bar_width=_BAR_WIDTH),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            refresh_per_second=8,
            # stdout is data: it must not pass through a drawing.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._waiting: TaskID | None = None

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def started(self, step: Step) -> None:
        self._progress.start()
        self._tasks[step.id] = self._progress.add_task(label(step), total=None, message="")

    def progress(self, step: Step, fraction: float | None, message: str) -> None:
        task = self._tasks.get(step.id)
        if task is not None:
            total = None if fraction is None else 1.0
            self._progress.update(task, total=total, completed=fraction or 0.0, message=harmless(message))

    def retrying(self, step: Step, error: Exception, delay: float) -> None:
        self._print(retry_line(step, error, delay))

    def finished(self, step: Step, outcome: Outcome) -> None:
        task = self._tasks.pop(step.id, None)
        if task is not None:
            self._progress.remove_task(task)
        self._print(end_line(step, outcome))

    def waiting(self, vms: Sequence[ObjectStatus]) -> None:
        missing = [vm for vm in vms if not vm.ready]
        if self._waiting is None:
            self._progress.start()
            self._waiting = self._progress.add_task("waiting for", total=None, message="")
        names = ", ".join(f"{vm.name} ({vm.state})" for vm in missing[:_NAMES_SHOWN])
        more = f" and {len(missing) - _NAMES_SHOWN} more" if len(missing) > _NAMES_SHOWN else ""
        done = len(vms) - len(missing)
        self._progress.update(self._waiting, total=len(vms), completed=done, message=f"{names}{more}")

    def note(self, message: str) -> None:
        self._print(harmless(message))

    def _print(self, line: str) -> None:
        self._console.print(Text.from_ansi(line), soft_wrap=True)


class _Words(ProgressColumn):
    """A task's label and message, as they are: names and messages are no markup."""

    def render(self, task: Task) -> Text:
        message = task.fields.get("message") or ""
        return Text(
            f"{task.description}: {message}" if message else task.description, overflow="ellipsis", no_wrap=True
        )


class _Bar(BarColumn):
    """A bar for work whose length is known, nothing for the rest: the spinner moves already."""

    def render(self, task: Task) -> Text:  # type: ignore[override]  # an empty text in place of the pulsing bar
        return Text() if task.total is None else super().render(task)  # type: ignore[return-value]
