"""The one place where the exceptions of fsspec and the operating system become StorageError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from rayxform.errors import StorageError
from rayxform.storage import s3

_RIGHTS = "give this user the right to it, or choose another path"

_REMEDIES = {
    errno.ENOSPC: "free space on the device or choose another S3OutputPath; the same command then runs the job again",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: "choose a path on a device that can be written",
    errno.ENOENT: "check the path; it may have been removed while the job ran",
    errno.EISDIR: "name an object, not a folder",
    errno.ENOTDIR: "one of the path's folders is a file; choose another path",
}

_KINDS = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}
"""What the stores' clients raise without a number."""

_CLIENTS = ("aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3")
"""The packages whose own exceptions reach this place through fsspec."""

_CODE_REMEDIES = {
    "AccessDenied": f"{_RIGHTS}; see the IAM policy of these credentials, the bucket's policy, and the key's (KmsKeyId)",
    "ExpiredToken": "these credentials have ended: get new ones, or use a role or a profile that renews them; "
    "then run the same command again",
    "InvalidAccessKeyId": "S3 does not know AWS_ACCESS_KEY_ID: check it, and AWS_PROFILE and AWS_ENDPOINT_URL",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to the access key: get new credentials",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "SlowDown": "S3 asked for fewer requests until the attempts were used up: run the same command again, with fewer workers",
}
"""By S3's own codes. Source: AWS, "Amazon S3 API: Error responses"."""
_CODE_REMEDIES["ServiceUnavailable"] = _CODE_REMEDIES["SlowDown"]

_CLIENT_REMEDIES = {
    "NoCredentialsError": "give credentials as boto3 takes them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "ProfileNotFound": "check AWS_PROFILE",
    "EndpointConnectionError": "check the network and AWS_ENDPOINT_URL",
    "ConnectTimeoutError": "check the network and AWS_ENDPOINT_URL",
}


@contextmanager
def storage_errors(action: str, url: str) -> Iterator[None]:
    """Translate what goes wrong inside.

    Args:
        action: what is being done, for the message ("read").
        url: what it is done to.

    Raises:
        StorageError: "cannot <action> <url>: <cause>; <remedy>".
    """
    try:
        yield
    except ImportError as error:
        raise StorageError(f"cannot {action} {url}: {error}; install that package beside rayxform") from error
    except OSError as error:
        cause = error.strerror or str(error) or type(error).__name__
        number = error.errno or next((number for kind, number in _KINDS.items() if isinstance(error, kind)), 0)
        remedy = _CODE_REMEDIES.get(s3.error_code(error) or "") or _REMEDIES.get(number)
        raise _storage_error(action, url, cause, remedy) from error
    except UnicodeDecodeError as error:
        raise StorageError(f"cannot {action} {url}: it is not UTF-8 text ({error})") from error
    except ValueError as error:
        known = "a plain path, file://, s3://, gs:// or another protocol that fsspec knows"
        raise StorageError(f"cannot {action} {url}: {error}; write {known}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise _storage_error(action, url, str(error), _CLIENT_REMEDIES.get(type(error).__name__)) from error


def _storage_error(action: str, url: str, cause: str, remedy: str | None) -> StorageError:
    return StorageError(f"cannot {action} {url}: {cause.rstrip('.')}" + (f"; {remedy}" if remedy else ""))


def open_filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the URL's path on it.

    Raises:
        StorageError: the protocol is unknown, or its package is not installed.
    """
    with storage_errors("open", url):
        filesystem, path = url_to_fs(url, **(s3.OPTIONS if url.startswith(("s3://", "s3a://")) else {}))
        if s3.is_s3(filesystem):
            filesystem.retries = 1  # botocore's are enough
    return filesystem, path.rstrip("/") or path


def is_local(filesystem: Any) -> bool:
    """Whether paths are files of this machine."""
    return isinstance(filesystem, fsspec.get_filesystem_class("file"))
