"""Asking a model again after an error: the one place for it, in the two manners that there are.

An ``inference.py`` is asked again at once, since no network lies between. A server is given time: the pauses grow and are
of random length, so that many workers do not come back at the same moment ("Exponential Backoff And Jitter", AWS
Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable

from rayxform.errors import InvocationError, ModelError
from rayxform.model.protocol import Response

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0


def retry_at_once(ask: Callable[[int], Response], retries: int) -> Response:
    """Ask until there is an answer or an error that stays, without a pause; ``Model.retry`` has the arguments."""
    for attempt in range(1, retries + 2):
        try:
            return ask(attempt)
        except ModelError as error:
            if attempt > retries or (isinstance(error, InvocationError) and error.is_final):
                raise
    raise AssertionError("the last attempt returns or raises")


def retry_with_back_off(ask: Callable[[int], Response], retries: int) -> Response:
    """Ask until there is an answer or an error that stays, with growing pauses; ``Model.retry`` has the arguments."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter  # noqa: PLC0415 - an extra

    attempts = Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_exponential_jitter(initial=FIRST_PAUSE_S, max=LONGEST_PAUSE_S, jitter=FIRST_PAUSE_S),
        retry=retry_if_exception(lambda error: isinstance(error, InvocationError) and not error.is_final),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            return ask(attempt.retry_state.attempt_number)
    raise AssertionError("the last attempt returns or raises")
