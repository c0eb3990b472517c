"""``GenerateInferenceId``: an id and a time for every result, by which ground truth is merged in later.

Source: AWS, "Capture data from batch transform job": two more columns at the end of a CSV row, or the attributes
``SageMakerInferenceId`` and ``SageMakerInferenceTime`` of a JSON object; the time is the job's start, for all records alike.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timezone

ID = "SageMakerInferenceId"
TIME = "SageMakerInferenceTime"


@dataclass(frozen=True)
class Stamp:
    """One result's id and time.

    Attributes:
        inference_id: a UUID.
        inference_time: in UTC, as ``2022-08-30T00:49:15Z``.
    """

    inference_id: str
    inference_time: str

    @property
    def columns(self) -> tuple[bytes, bytes]:
        """As fields of a CSV row."""
        return self.inference_id.encode(), self.inference_time.encode()

    @property
    def attributes(self) -> dict[str, bytes]:
        """As attributes of a JSON object."""
        return {ID: b'"%s"' % self.inference_id.encode(), TIME: b'"%s"' % self.inference_time.encode()}


@dataclass(frozen=True)
class InferenceIds:
    """The ids of a job's results: those of one run are all different, and the same whenever a record is sent again.

    Attributes:
        run: a UUID that no other run has.
        started_at: when the job began, as Unix time in seconds.
    """

    run: str
    started_at: float

    def stamp(self, key: str, record: int) -> Stamp:
        """The stamp of a record.

        Args:
            key: the input's key.
            record: the record's number in it, from 0.
        """
        began = datetime.fromtimestamp(int(self.started_at), timezone.utc)
        # The name-based kind (RFC 9562, section 5.5), so that a mini-batch that is done twice gives the same bytes.
        return Stamp(str(uuid.uuid5(uuid.UUID(self.run), f"{record}/{key}")), began.strftime("%Y-%m-%dT%H:%M:%SZ"))
