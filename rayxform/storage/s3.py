"""What S3 can do and a file system cannot: list by string prefix, read one version, and put objects together on its side.

Source of the limits: AWS, "Amazon S3 multipart upload limits".
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

from rayxform.errors import StorageError
from rayxform.storage.retrying import BrokenOffError, answer_of_s3, retry

MIB: Final = 1024 * 1024
MIN_PART_BYTES: Final = 5 * MIB
"""Every part of an upload but the last is at least that long."""
MAX_COPY_BYTES: Final = 5 * 1024 * MIB
"""The most that one request copies on S3's side."""
MAX_PARTS: Final = 10_000
AT_ONCE: Final = 16
"""Requests of one upload that are on their way at once."""

CONNECTIONS: Final = 64

OPTIONS: Final[dict[str, Any]] = {
    # What was listed before tells nothing of what is there now.
    "use_listings_cache": False,
    "config_kwargs": {
        "max_pool_connections": CONNECTIONS,
        # The manner that gives up no request because others have failed; its pauses are of random length, at most 1, 2, 4 … s.
        "retries": {"mode": "legacy", "total_max_attempts": 7},
    },
}
"""For s3fs. Credentials, region and endpoint it takes from where boto3 does: environment, profiles, the machine's role."""

_CONDITION_FAILED: Final = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404")

Encryption = dict[str, str]
"""The request members that say how an object is encrypted."""


@dataclass(frozen=True)
class Stored:
    """An object, or a part of one, that is on S3 already.

    Attributes:
        path: bucket and key.
        begin: its first byte.
        end: the first byte after it.
    """

    path: str
    begin: int
    end: int

    @property
    def n_bytes(self) -> int:
        """How long it is."""
        return self.end - self.begin


def is_s3(filesystem: Any) -> bool:
    """Whether a file system is s3fs's."""
    return "s3" in filesystem.protocol


def encryption(kms_key_id: str | None) -> Encryption:
    """SSE-KMS with a key, or what the bucket does by default."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}


def list_objects(filesystem: Any, path: str) -> Iterator[dict[str, Any]]:
    """Every object whose bucket and key begin with ``path``, as fsspec's information on it, in the order of the keys."""
    bucket, _, prefix = path.partition("/")
    more: dict[str, str] = {}
    while True:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        for one in page.get("Contents", ()):
            yield {"name": f"{bucket}/{one['Key']}", "size": one["Size"], "ETag": one["ETag"], "type": "file"}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def get_range(filesystem: Any, path: str, begin: int, end: int, etag: str | None = None) -> bytes:
    """The bytes of an object from ``begin`` to before ``end``.

    Args:
        filesystem: s3fs's.
        path: bucket and key.
        begin: the first byte.
        end: the byte after the last, more than ``begin``.
        etag: the version that it has to be, or None.

    Raises:
        StorageError: the object has another version by now.
        OSError: it cannot be read.
    """
    from fsspec.asyn import sync  # noqa: PLC0415

    bucket, _, key = path.partition("/")
    condition = {"IfMatch": etag} if etag else {}

    def get() -> bytes:
        try:
            response = filesystem.call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={begin}-{end - 1}", **condition)
        except OSError as error:
            if error_code(error) in ("PreconditionFailed", "412"):
                raise StorageError(
                    f"s3://{path} changed after the job had begun; run the job again when nothing writes to it"
                ) from error
            raise
        body = response["Body"]
        try:
            data: bytes = sync(filesystem.loop, body.read)
        finally:
            body.close()
        if len(data) != end - begin:
            raise BrokenOffError(path, end - begin - len(data))
        return data

    return retry(get)


def put(filesystem: Any, path: str, data: bytes, encrypted: Encryption) -> None:
    """Write an object, which appears whole."""
    filesystem.pipe_file(path, data, **encrypted)


def put_if(filesystem: Any, path: str, data: bytes, etag: str | None, encrypted: Encryption) -> bool:
    """Write an object only where nothing has changed: a compare-and-swap. Source: AWS, "Conditional requests".

    Args:
        filesystem: s3fs's.
        path: bucket and key.
        data: what is written.
        etag: the version that it replaces, or None where no object may be there.
        encrypted: how it is encrypted.

    Returns:
        Whether it was written. A lost answer may make one that was look as if it were not; the caller reads it to tell.

    Raises:
        OSError: it cannot be written; its ``errno`` is ENOSYS where the store knows no conditional writes.
    """
    bucket, _, key = path.partition("/")
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    return _do_if(filesystem, "put_object", Bucket=bucket, Key=key, Body=data, **condition, **encrypted)


def remove_if(filesystem: Any, path: str, etag: str) -> bool:
    """Remove an object if it has that version; gives whether it was removed. A store may not heed the condition.

    Raises:
        OSError: it cannot be removed.
    """
    bucket, _, key = path.partition("/")
    return _do_if(filesystem, "delete_object", Bucket=bucket, Key=key, IfMatch=etag)


def _do_if(filesystem: Any, action: str, **members: Any) -> bool:
    """Send a request with a condition; gives whether that held."""
    try:
        filesystem.call_s3(action, **members)
    except OSError as error:
        if error_code(error) not in _CONDITION_FAILED:
            raise
        return False
    return True


@dataclass(frozen=True)
class Stamped:
    """A small object as it was at one moment.

    Attributes:
        data: its bytes.
        etag: its version.
        age_s: how long ago it was written. Both ends are the store's times, so that no other clock matters.
    """

    data: bytes
    etag: str
    age_s: float


def get_stamped(filesystem: Any, path: str) -> Stamped | None:
    """A small object with its version and age, or None if it is not there.

    Raises:
        OSError: it cannot be read.
    """
    from fsspec.asyn import sync  # noqa: PLC0415

    bucket, _, key = path.partition("/")
    try:
        response = filesystem.call_s3("get_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    with contextlib.closing(response["Body"]) as body:
        data: bytes = sync(filesystem.loop, body.read)
    stamp = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    now = parsedate_to_datetime(stamp) if stamp else datetime.now(timezone.utc)
    return Stamped(data, response["ETag"], (now - response["LastModified"]).total_seconds())


def compose(filesystem: Any, sources: Sequence[Stored], target: str, scratch: str, encrypted: Encryption) -> None:
    """Make an object of others, one after another, on S3's side; only what is too small for that comes here and goes back.

    Args:
        filesystem: s3fs's.
        sources: what it is made of.
        target: its bucket and key; it appears whole, or not at all.
        scratch: a prefix of objects that may be left, for what has more than MAX_PARTS parts.
        encrypted: how it is encrypted.

    Raises:
        OSError: it cannot be written; the upload is aborted.
    """
    bucket, _, key = target.partition("/")
    sources = [one for one in sources if one.n_bytes]
    segments = plan_segments(sources)
    if not segments:
        put(filesystem, target, b"", encrypted)
    elif len(sources) == 1 and sources[0].n_bytes <= MAX_COPY_BYTES:
        filesystem.call_s3("copy_object", Bucket=bucket, Key=key, CopySource=_source(sources[0]), **encrypted)
    elif len(segments) > MAX_PARTS:
        groups = [segments[at : at + MAX_PARTS] for at in range(0, len(segments), MAX_PARTS)]
        joined = []
        for number, group in enumerate(groups):
            name = f"{scratch}-{number}"
            _upload(filesystem, group, name, encrypted)
            joined.append(Stored(name, 0, sum(one.n_bytes for segment in group for one in segment)))
        compose(filesystem, joined, target, f"{scratch}-0", encrypted)
    else:
        _upload(filesystem, segments, target, encrypted)


def plan_segments(sources: Sequence[Stored]) -> list[list[Stored]]:
    """Cut consecutive objects into an upload's parts: alone what is long enough to be copied, together what is not.

    What is too short is filled up from the beginning of what follows, so that the rest of a long object is still copied.
    """
    segments: list[list[Stored]] = []
    short: list[Stored] = []
    room = 0
    for source in sources:
        at = source.begin
        if short:
            at = min(source.end, at + room)
            short.append(Stored(source.path, source.begin, at))
            room -= at - source.begin
            if room == 0:
                segments.append(short)
                short = []
        while source.end - at >= MIN_PART_BYTES:
            # The rest of one that is copied in pieces must not become too short itself.
            end = source.end if source.end - at <= MAX_COPY_BYTES else min(at + MAX_COPY_BYTES, source.end - MIN_PART_BYTES)
            segments.append([Stored(source.path, at, end)])
            at = end
        if at < source.end:
            short = [Stored(source.path, at, source.end)]
            room = MIN_PART_BYTES - short[0].n_bytes
    return [*segments, short] if short else segments


def _upload(filesystem: Any, segments: Sequence[Sequence[Stored]], target: str, encrypted: Encryption) -> None:
    bucket, _, key = target.partition("/")
    upload = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key, **encrypted)
    which = {"Bucket": bucket, "Key": key, "UploadId": upload["UploadId"]}
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(AT_ONCE) as readers:

            def send(number: int, segment: Sequence[Stored]) -> str:
                part = {**which, "PartNumber": number}
                if len(segment) == 1 and segment[0].n_bytes >= MIN_PART_BYTES:
                    (one,) = segment
                    span = f"bytes={one.begin}-{one.end - 1}"
                    copied = filesystem.call_s3("upload_part_copy", CopySource=_source(one), CopySourceRange=span, **part)
                    return str(copied["CopyPartResult"]["ETag"])
                body = b"".join(readers.map(lambda one: get_range(filesystem, one.path, one.begin, one.end), segment))
                return str(filesystem.call_s3("upload_part", Body=body, **part)["ETag"])

            etags = list(pool.map(send, range(1, len(segments) + 1), segments))
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        _complete(filesystem, which, parts, n_bytes=sum(one.n_bytes for segment in segments for one in segment))
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is what has to be told
            filesystem.call_s3("abort_multipart_upload", **which)
        raise


def _complete(filesystem: Any, which: dict[str, str], parts: Sequence[dict[str, Any]], n_bytes: int) -> None:
    """Complete an upload; one that is gone was completed before, and the answer lost, if the object is what it makes."""
    try:
        filesystem.call_s3("complete_multipart_upload", MultipartUpload={"Parts": parts}, **which)
    except FileNotFoundError:
        there = filesystem.call_s3("head_object", Bucket=which["Bucket"], Key=which["Key"])
        # An object that is encrypted with a key has an ETag that does not follow from those of its parts.
        has_own_etag = "kms" in there.get("ServerSideEncryption", "")
        etag = there["ETag"].strip('"')
        is_it = etag.endswith(f"-{len(parts)}") if has_own_etag else etag == _whole_etag([part["ETag"] for part in parts])
        if not is_it or there["ContentLength"] != n_bytes:
            raise


def _whole_etag(etags: Sequence[str]) -> str:
    """The ETag that an upload's object has by those of its parts: what S3 does, which its documentation says nowhere."""
    try:
        digests = b"".join(bytes.fromhex(etag.strip('"')) for etag in etags)
    except ValueError:
        return ""
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def _source(one: Stored) -> dict[str, str]:
    bucket, _, key = one.path.partition("/")
    return {"Bucket": bucket, "Key": key}


def error_code(error: BaseException) -> str | None:
    """S3's own code for an error that comes of its answer."""
    response = answer_of_s3(error)
    return response["Error"].get("Code") if response else None
