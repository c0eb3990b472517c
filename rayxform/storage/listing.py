"""Which objects a job reads: a file, a folder, a string prefix, a glob pattern, or what a manifest names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from rayxform.core.naming import key_below
from rayxform.errors import InputNotFoundError, StorageError
from rayxform.spec import check_objects
from rayxform.storage import s3
from rayxform.storage.decompressing import compression_of
from rayxform.storage.edge import is_local, open_filesystem, storage_errors
from rayxform.storage.manifests import read_manifest
from rayxform.storage.objects import InputObject, object_version
from rayxform.storage.retrying import find_below, info_of, kind_of

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Listing:
    """The objects of a job.

    Attributes:
        inputs: in the order of their keys, or of the manifest.
        warnings: what a user may not have meant; a sentence each.
    """

    inputs: Sequence[InputObject]
    warnings: tuple[str, ...] = ()


def list_inputs(
    uri: str, output_uri: str, *, manifest: bool = False, compressed: bool = False, within: Sequence[str] = ()
) -> Listing:
    """The objects that ``S3Uri`` names.

    On S3 it is a string prefix, as on AWS (API, TransformS3DataSource), or a glob pattern. Elsewhere a file gives itself, a
    folder everything below it, a glob pattern what matches it, and anything else is a string prefix. Keys that end in "/"
    and whatever lies below the output are no inputs. A manifest gives what it names, in its order, and keys are its names.

    Args:
        uri: S3Uri.
        output_uri: S3OutputPath.
        manifest: whether S3Uri is a ManifestFile.
        compressed: whether the objects are compressed (CompressionType).
        within: URLs and paths that all objects must lie below; empty for no limit.

    Raises:
        InputNotFoundError: no object is there, or two would have one output.
        LocationRefusedError: an object lies elsewhere.
        StorageError: the place cannot be listed.
    """
    found, warnings = (_find_named(uri, within), ()) if manifest else _find_below(uri, output_uri)
    inputs = [
        InputObject(
            url=filesystem.unstrip_protocol(info["name"]),
            key=key,
            size=int(info["size"]),
            version=object_version(info),
            compression=compression_of(key) if compressed else None,
        )
        for filesystem, key, info in found
    ]
    if within:
        check_objects((one.url for one in inputs), within)
    return Listing(inputs, warnings)


_Found = tuple[Any, str, dict[str, Any]]
"""A file system, an object's key, and fsspec's information on it."""


class InputFinder:
    """Finds a job's inputs by their keys, without a listing of all of them: what ``list_inputs`` does, backwards."""

    def __init__(self, uri: str, *, manifest: bool = False, compressed: bool = False) -> None:
        """Nothing is looked for yet; see ``list_inputs`` for what is given."""
        self._uri = uri
        self._is_manifest = manifest
        self._is_compressed = compressed
        self._roots: tuple[Any, Sequence[str]] | None = None

    def find(self, key: str) -> InputObject | None:
        """The object of a key, as it is now; None where there is none.

        Raises:
            InputNotFoundError: the manifest is none.
            StorageError: the place cannot be read.
        """
        if ".." in PurePosixPath(key).parts:
            return None
        self._roots = self._roots or self._find_roots()
        filesystem, roots = self._roots
        for path in (f"{root}{key}" for root in roots):
            with storage_errors("look for", filesystem.unstrip_protocol(path)):
                info = info_of(filesystem, path) if kind_of(filesystem, path) == "file" else None
            if info is not None:
                compression = compression_of(key) if self._is_compressed else None
                url = filesystem.unstrip_protocol(path)
                return InputObject(url, key, int(info["size"]), object_version(info), compression)
        return None

    def _find_roots(self) -> tuple[Any, Sequence[str]]:
        """What stands before keys; several places, where only a look tells."""
        if self._is_manifest:
            prefix = read_manifest(self._uri)[0]
            filesystem, start = open_filesystem(prefix)
            return filesystem, [start + ("/" if prefix.endswith("/") else ""), f"{start}/"]
        filesystem, path = open_filesystem(self._uri)
        if pattern := _GLOB.search(path):
            return filesystem, [path[: path.rindex("/", 0, pattern.start()) + 1]]
        parent = path[: path.rfind("/") + 1]
        if s3.is_s3(filesystem):
            return filesystem, [f"{path}/"] if self._uri.endswith("/") else [f"{path}/", parent]
        with storage_errors("look for", self._uri):
            return filesystem, [f"{path}/" if kind_of(filesystem, path) == "directory" else parent]


def _find_below(uri: str, output_uri: str) -> tuple[list[_Found], tuple[str, ...]]:
    filesystem, path = open_filesystem(uri)
    is_prefix = s3.is_s3(filesystem) and not _GLOB.search(path)
    # The slash at the end, which fsspec takes off, tells a folder from a prefix of names.
    prefix = path + ("/" if uri.endswith("/") and not path.endswith("/") else "")
    output = open_filesystem(output_uri)[1] + "/" if _same_store(filesystem, output_uri) else None
    found, own = [], 0
    with storage_errors("list", uri):
        for key, info in _list_prefix(filesystem, prefix) if is_prefix else _find(filesystem, path):
            if output and info["name"].startswith(output):
                own += 1
            elif info["type"] == "file" and not info["name"].endswith("/"):
                found.append((filesystem, key, info))
    if not found:
        raise InputNotFoundError(
            f"TransformInput.DataSource.S3DataSource.S3Uri is {uri!r}, but no object is there; "
            "name a file, a folder with files in it, a prefix of their names, or a glob pattern"
        )
    found.sort(key=lambda one: one[1])
    for one, other in pairwise(found):
        if one[1] == other[1]:
            raise InputNotFoundError(
                f"{one[2]['name']} and {other[2]['name']} are both called {one[1]!r} below S3Uri {uri!r}, and would have one "
                "output; end S3Uri with a slash to read that folder alone"
            )
    return found, tuple(_prefix_warnings(uri, prefix if is_prefix else "", found, own))


def _prefix_warnings(uri: str, prefix: str, found: Sequence[_Found], own: int) -> Iterator[str]:
    if own:
        yield f"S3Uri {uri} takes in S3OutputPath too; the {own} objects of the output were left out"
    if not prefix or prefix.endswith("/"):
        return
    siblings = [info["name"] for _, _, info in found if not info["name"].startswith(f"{prefix}/")]
    if siblings and len(siblings) < len(found):
        yield (
            f"S3Uri {uri} is a prefix of names, as on AWS, and takes in {len(siblings)} objects outside of the folder, such as "
            f"s3://{siblings[0]}; end it with a slash to read the folder alone"
        )


def _list_prefix(filesystem: Any, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys below the prefix, and what S3 tells of them."""
    bucket, _, start = prefix.partition("/")
    for info in s3.list_objects(filesystem, prefix):
        yield key_below(start, info["name"][len(bucket) + 1 :]), info


def _find_named(uri: str, within: Sequence[str]) -> list[_Found]:
    prefix, names = read_manifest(uri)
    if within:  # before anything there is touched
        check_objects((prefix + name for name in names), within)
    filesystem, start = open_filesystem(prefix)
    start += "/" if prefix.endswith("/") else ""

    def find(name: str) -> _Found:
        if ".." in PurePosixPath(name).parts:
            raise InputNotFoundError(f"{uri}: the name {name!r} leads out of the prefix and of the output; write it without ..")
        try:
            with storage_errors("list", prefix + name):
                info = info_of(filesystem, start + name)
        except StorageError as error:
            if not isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                raise
            info = {"type": "missing"}
        if info["type"] != "file":
            raise InputNotFoundError(f"{uri} names {prefix + name!r}, but no object is there; remove the name, or write it")
        return filesystem, name.lstrip("/"), info

    with ThreadPoolExecutor(1 if is_local(filesystem) else s3.CONNECTIONS) as pool:
        return list(pool.map(find, names))


def _find(filesystem: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys, counted from the folder that S3Uri names or is in, and fsspec's information on every candidate."""
    root, infos = _find_candidates(filesystem, path)
    for info in infos:
        yield PurePosixPath(info["name"]).relative_to(root).as_posix(), info


def _find_candidates(filesystem: Any, path: str) -> tuple[str, list[dict[str, Any]]]:
    """The folder that keys are counted from, and fsspec's information on every candidate."""
    if pattern := _GLOB.search(path):
        fixed = path[: path.rindex("/", 0, pattern.start()) + 1]
        return fixed.rstrip("/") or "/", list(find_below(filesystem, path, pattern=True).values())
    parent = path.rpartition("/")[0] or "/"
    kind = kind_of(filesystem, path)
    if kind == "file":
        return parent, [info_of(filesystem, path)]
    if kind == "directory":
        return path, list(find_below(filesystem, path).values())
    if kind_of(filesystem, parent) != "directory":
        return parent, []
    below = find_below(filesystem, parent).values()
    return parent, [info for info in below if info["name"].startswith(path)]


def _same_store(filesystem: Any, output_uri: str) -> bool:
    return type(open_filesystem(output_uri)[0]) is type(filesystem)
