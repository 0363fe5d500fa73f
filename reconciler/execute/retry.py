"""The one door to tenacity: which failures are tried again, how often, after how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from reconciler.lib import run
from reconciler.lib.clock import Clock
from reconciler.lib.errors import BangerError, CancelledError

T = TypeVar("T")
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 15.0


def with_retry(
    work: Callable[[], T], clock: Clock, on_retry: Callable[[Exception, float], None], *, attempts: int
) -> T:
    """Runs `work`, again after a growing, jittered delay while its error is retryable, `attempts` times in all.

    `on_retry` is called before each further attempt, with the error and the seconds until then. Returns the result
    of `work`; the last error is raised as it came. Raises CancelledError if the process is told to end in between.
    """

    def tell(state: RetryCallState) -> None:
        problem = state.outcome.exception() if state.outcome else None
        if isinstance(problem, Exception) and state.next_action:
            on_retry(problem, state.next_action.sleep)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if run.cancelled():
            raise CancelledError

    retrying = Retrying(
        stop=stop_after_attempt(attempts),
        wait=wait_exponential_jitter(initial=_FIRST_DELAY, max=_LONGEST_DELAY),
        retry=retry_if_exception(_worth_retrying),
        sleep=sleep,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(work)


def _worth_retrying(problem: BaseException) -> bool:
    return isinstance(problem, BangerError) and problem.error_class.worth_retrying and not run.cancelled()
