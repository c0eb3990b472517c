"""What a model is to the rest of rayxform: something that answers requests, whether an inference.py or an HTTP server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rayxform.model.context import InvocationContext


@dataclass(frozen=True)
class Response:
    """What the model answers to one request.

    Attributes:
        body: the body, a str as UTF-8.
        content_type: what output_fn or the server said, else the request's Accept.
    """

    body: bytes
    content_type: str


class Model(Protocol):
    """A model that is ready to answer.

    Attributes:
        model_dir: the unpacked model's folder; "" for a server, which has its own.
    """

    model_dir: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the model, though it runs; a sentence each. Requests may add some."""

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,
        context: InvocationContext,
        staged: bytes | memoryview | None = None,
    ) -> Response:
        """Answer one request, asked once.

        Args:
            body: the request's body.
            content_type: its media type.
            accept: that of the response.
            context: what the request is about.
            staged: what the input_fn of another process made of it (see ``staging``); None where it is still to be read.

        Raises:
            InvocationError: there is no answer, or the answer is an error.
            ModelLoadError: a server ended and could not be started again.
        """

    def run_ahead(self, body: bytes | memoryview, content_type: str, context: InvocationContext) -> None:
        """Tell of the request after the one that is asked next: where the model can, it reads its input meanwhile."""

    def retry(self, ask: Callable[[int], Response], retries: int) -> Response:
        """Call ``ask`` with the attempt's number, from 1, until it does not raise, in the manner that suits this model.

        Args:
            ask: one attempt; calls ``transform``.
            retries: how often it is called again at the most (InvocationsMaxRetries).

        Raises:
            ModelError: the last attempt's.
        """

    def close(self) -> None:
        """End what belongs to the model: connections, and a server that was started for it."""
