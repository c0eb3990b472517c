"""The job's figures for Prometheus, through Ray's own metrics: every node of a Ray cluster exports them (ray[default]).

The driver counts them from what it learns of each part, so they cost the workers nothing. Ray Data adds its own for each stage
of the pipeline, such as what waits between the readers and the workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

_COUNTED = {
    "n_records": ("rayxform_records_total", "Records whose results are written."),
    "n_requests": ("rayxform_requests_total", "Requests that the model has answered."),
    "input_bytes": ("rayxform_request_bytes_total", "Bytes of those requests."),
    "output_bytes": ("rayxform_output_bytes_total", "Bytes of results that are written."),
    "read_s": ("rayxform_reading_seconds_total", "Seconds of reading, splitting, filtering and packing."),
    "model_s": ("rayxform_model_seconds_total", "Seconds in the model."),
    "join_s": ("rayxform_joining_seconds_total", "Seconds of cutting responses, joining and filtering."),
    "write_s": ("rayxform_writing_seconds_total", "Seconds of writing."),
}
"""Column of a manifest row → name and description."""


class Metrics:
    """The figures of one job; its name is their tag ``job``."""

    def __init__(self, job_name: str) -> None:
        tags = {"tag_keys": ("job",)}
        self._tags = {"job": job_name}
        self._counters = {column: Counter(name, description, **tags) for column, (name, description) in _COUNTED.items()}
        self._errors = Counter("rayxform_errors_total", "Errors that failed a file, and bad records let pass.", **tags)
        self._waiting = Gauge("rayxform_waiting_bytes", "Bytes of the input that are not through the model yet.", **tags)

    def part(self, row: Mapping[str, Any]) -> None:
        """A part is written: its manifest row."""
        for column, counter in self._counters.items():
            if (value := row[column] or 0) > 0:
                counter.inc(value, tags=self._tags)

    def errors(self, count: int) -> None:
        """So many errors more."""
        if count:
            self._errors.inc(count, tags=self._tags)

    def waiting(self, n_bytes: int) -> None:
        """So much of the input is still to come."""
        self._waiting.set(n_bytes, tags=self._tags)
