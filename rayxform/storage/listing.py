"""Which objects a job reads: a file, a folder, a string prefix, a glob pattern, or what a manifest names."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from rayxform.errors import InputNotFoundError
from rayxform.storage.decompressing import compression_of
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.manifests import read_manifest
from rayxform.storage.objects import InputObject, object_version

_GLOB = re.compile(r"[*?\[]")


def list_inputs(uri: str, output_uri: str, *, manifest: bool = False, compressed: bool = False) -> list[InputObject]:
    """The objects that ``S3Uri`` names, in the order of their keys.

    A file gives itself, a folder everything below it, a glob pattern what matches it, and anything else is a string prefix,
    as S3Prefix is on S3. Keys that end in "/" and whatever lies below the output are no inputs. A manifest gives what it
    names, in its order, and keys are its names.

    Args:
        uri: S3Uri.
        output_uri: S3OutputPath.
        manifest: whether S3Uri is a ManifestFile.
        compressed: whether the objects are compressed (CompressionType).

    Raises:
        InputNotFoundError: no object is there.
        StorageError: the place cannot be listed.
    """
    found = _find_named(uri) if manifest else _find_below(uri, output_uri)
    return [
        InputObject(
            url=filesystem.unstrip_protocol(info["name"]),
            key=key,
            size=int(info["size"]),
            version=object_version(info),
            compression=compression_of(key) if compressed else None,
        )
        for filesystem, key, info in found
    ]


_Found = tuple[Any, str, dict[str, Any]]
"""A file system, an object's key, and fsspec's information on it."""


def _find_below(uri: str, output_uri: str) -> list[_Found]:
    filesystem, path = open_filesystem(uri)
    with storage_errors("list", uri):
        root, infos = _find(filesystem, path)
    output = open_filesystem(output_uri)[1] + "/" if _same_store(filesystem, output_uri) else None
    found = [
        (filesystem, PurePosixPath(info["name"]).relative_to(root).as_posix(), info)
        for info in infos
        if info["type"] == "file" and not info["name"].endswith("/") and not (output and info["name"].startswith(output))
    ]
    if not found:
        raise InputNotFoundError(
            f"TransformInput.DataSource.S3DataSource.S3Uri is {uri!r}, but no object is there; "
            "name a file, a folder with files in it, a prefix of their names, or a glob pattern"
        )
    return sorted(found, key=lambda one: one[1])


def _find_named(uri: str) -> list[_Found]:
    prefix, names = read_manifest(uri)
    filesystem, start = open_filesystem(prefix)
    start += "/" if prefix.endswith("/") else ""
    found = []
    for name in names:
        if ".." in PurePosixPath(name).parts:
            raise InputNotFoundError(f"{uri}: the name {name!r} leads out of the prefix and of the output; write it without ..")
        with storage_errors("list", prefix + name):
            if not filesystem.isfile(start + name):
                raise InputNotFoundError(f"{uri} names {prefix + name!r}, but no object is there; remove the name, or write it")
            found.append((filesystem, name.lstrip("/"), filesystem.info(start + name)))
    return found


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
