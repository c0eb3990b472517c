"""What is known of an object that is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rayxform.storage.decompressing import Compression
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.retrying import retry


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object to be transformed.

    Attributes:
        url: where it is, as fsspec opens it.
        key: its name below the input prefix, which also names its output.
        size: in bytes.
        version: what changes when the object does: its ETag, or its time of modification.
        compression: how it is compressed, or None.
    """

    url: str
    key: str
    size: int
    version: str
    compression: Compression | None = None


def object_version(info: dict[str, Any]) -> str:
    """What changes when an object does, from fsspec's information on it."""
    for member in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created"):
        if info.get(member) is not None:
            return str(info[member])
    return ""


def modified_at(url: str) -> float | None:
    """When an object was written, by its store's clock, as Unix time in seconds; None where the store does not tell.

    Raises:
        StorageError: it cannot be found out.
    """
    filesystem, path = open_filesystem(url)
    with storage_errors("look for", url):
        try:
            return float(retry(lambda: filesystem.modified(path)).timestamp())
        except NotImplementedError:
            return None
