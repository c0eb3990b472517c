"""Which objects a job reads: a file, a folder, a string prefix, or a glob pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rayxform.errors import InputNotFoundError
from rayxform.storage.edge import open_filesystem, storage_errors

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class InputObject:
    """One object to be transformed.

    Attributes:
        url: where it is, as fsspec opens it.
        key: its name below the input prefix, which also names its output.
        size: in bytes.
        version: what changes when the object does: its ETag, or its time of modification.
    """

    url: str
    key: str
    size: int
    version: str


def list_inputs(uri: str, output_uri: str) -> list[InputObject]:
    """The objects that ``S3Uri`` names, in the order of their keys.

    A file gives itself, a folder everything below it, a glob pattern what matches it, and anything else is a string prefix,
    as S3Prefix is on S3. Keys that end in "/" and whatever lies below the output are no inputs.

    Args:
        uri: S3Uri.
        output_uri: S3OutputPath.

    Raises:
        InputNotFoundError: no object is there.
        StorageError: the place cannot be listed.
    """
    filesystem, path = open_filesystem(uri)
    with storage_errors("list", uri):
        root, infos = _find(filesystem, path)
    output = open_filesystem(output_uri)[1] + "/" if _same_store(filesystem, output_uri) else None
    objects = [
        InputObject(
            url=filesystem.unstrip_protocol(info["name"]),
            key=PurePosixPath(info["name"]).relative_to(root).as_posix(),
            size=int(info["size"]),
            version=object_version(info),
        )
        for info in infos
        if info["type"] == "file" and not info["name"].endswith("/") and not (output and info["name"].startswith(output))
    ]
    if not objects:
        raise InputNotFoundError(
            f"TransformInput.DataSource.S3DataSource.S3Uri is {uri!r}, but no object is there; "
            "name a file, a folder with files in it, a prefix of their names, or a glob pattern"
        )
    return sorted(objects, key=lambda found: found.key)


def object_version(info: dict[str, Any]) -> str:
    """What changes when an object does, from fsspec's information on it."""
    for member in ("ETag", "etag", "mtime", "LastModified", "last_modified", "created"):
        if info.get(member) is not None:
            return str(info[member])
    return ""


def _find(filesystem: Any, path: str) -> tuple[str, list[dict[str, Any]]]:
    """The folder that keys are counted from, and fsspec's information on every candidate."""
    if pattern := _GLOB.search(path):
        fixed = path[: path.rindex("/", 0, pattern.start()) + 1]
        return fixed.rstrip("/") or "/", list(filesystem.glob(path, detail=True).values())
    parent = path.rpartition("/")[0] or "/"
    if filesystem.isfile(path):
        return parent, [filesystem.info(path)]
    if filesystem.isdir(path):
        return path, list(filesystem.find(path, detail=True).values())
    if not filesystem.isdir(parent):
        return parent, []
    below = filesystem.find(parent, detail=True).values()
    return parent, [info for info in below if info["name"].startswith(path)]


def _same_store(filesystem: Any, output_uri: str) -> bool:
    return type(open_filesystem(output_uri)[0]) is type(filesystem)
