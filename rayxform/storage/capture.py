"""``DataCaptureConfig``: lists of a job's inputs and outputs, where Model Monitor looks for them.

Source: AWS, "Capture data from batch transform job": ``<DestinationS3Uri>/input`` and ``/output``, below each
``yyyy/mm/dd/hh/<uuid>.json`` by the hour in UTC in which the job began; a file is a ManifestFile and holds no data.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

import msgspec

from rayxform.storage import s3
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.writing import write_whole


@dataclass(frozen=True)
class CaptureFolder:
    """Where a job's lists go.

    Attributes:
        url: DestinationS3Uri.
        kms_key_id: the key that encrypts what is written to S3, or None.
        started_at: when the job began, as Unix time in seconds.
    """

    url: str
    kms_key_id: str | None
    started_at: float

    def write(self, side: Literal["input", "output"], urls: Sequence[str]) -> str:
        """List objects; gives the list's URL.

        Args:
            side: which folder it belongs to.
            urls: the objects, at least one.

        Raises:
            StorageError: it cannot be written.
        """
        hour = datetime.fromtimestamp(self.started_at, timezone.utc).strftime("%Y/%m/%d/%H")
        target = f"{self.url.rstrip('/')}/{side}/{hour}/{uuid.uuid4()}.json"
        prefix = os.path.commonprefix([url.rpartition("/")[0] + "/" for url in urls])  # noqa: RUF071 - of URLs, not paths
        prefix = prefix[: prefix.rindex("/") + 1]
        content = msgspec.json.encode([{"prefix": prefix}, *(url[len(prefix) :] for url in urls)])
        filesystem, path = open_filesystem(target)
        with storage_errors("write", target):
            write_whole(filesystem, path, [content], s3.encryption(self.kms_key_id))
        return target
