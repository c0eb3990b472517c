"""``S3DataType: ManifestFile``: a JSON array that names the objects of a job.

The first element is ``{"prefix": …}``, every other one a name that is put behind the prefix as it is. Source: AWS API,
TransformS3DataSource.S3Uri.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rayxform.core.jsonpath import excerpt
from rayxform.errors import InputNotFoundError
from rayxform.storage.reading import read_text

_FORM = '[{"prefix": "s3://bucket/folder/"}, "name", …]'


def read_manifest(url: str) -> tuple[str, list[str]]:
    """The prefix and the names in a manifest.

    Raises:
        InputNotFoundError: it is not a manifest, or names nothing, or one name twice.
        StorageError: it cannot be read.
    """
    try:
        elements = msgspec.json.decode(read_text(url))
    except (msgspec.DecodeError, RecursionError) as error:
        raise _not_a_manifest(url, f"it is not JSON: {error}") from None
    if not isinstance(elements, list) or not elements:
        raise _not_a_manifest(url, "it is not an array with elements in it")
    prefix = elements[0].get("prefix") if isinstance(elements[0], dict) else None
    if not isinstance(prefix, str) or not prefix:
        raise _not_a_manifest(url, f"its first element is {_shown(elements[0])}, which names no prefix")
    names: dict[str, int] = {}
    for number, name in enumerate(elements[1:], start=2):
        if not isinstance(name, str) or not name:
            raise _not_a_manifest(url, f"its element {number} is {_shown(name)}, which is no name")
        if name in names:
            raise _not_a_manifest(url, f"its elements {names[name]} and {number} are both {name!r}, which have one output")
        names[name] = number
    if not names:
        raise _not_a_manifest(url, "it names no object")
    return prefix, list(names)


def _not_a_manifest(url: str, what: str) -> InputNotFoundError:
    return InputNotFoundError(
        f"TransformInput.DataSource.S3DataSource.S3Uri is {url!r}, but as a ManifestFile {what}; write {_FORM}, "
        'or set S3DataType to "S3Prefix"'
    )


def _shown(element: Any) -> str:
    return excerpt(msgspec.Raw(msgspec.json.encode(element)))
