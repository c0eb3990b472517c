"""``CompressionType: Gzip``: objects that are decompressed while they are read, a chunk at a time.

Several gzip members one after another are one stream (RFC 1952, section 2.2). Where the key says so by its extension, bzip2
and Zstandard are read as well, which AWS does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rayxform.errors import StorageError

Compression = Literal["gzip", "bz2", "zstd"]

_EXTENSIONS: dict[str, Compression] = {"bz2": "bz2", "zst": "zstd", "zstd": "zstd"}


def compression_of(key: str) -> Compression:
    """How a compressed object is compressed, by its key's extension: gzip, unless that says bzip2 or Zstandard."""
    return _EXTENSIONS.get(key.rpartition(".")[2].lower(), "gzip")


def decompressed(file: Any, compression: Compression) -> Any:
    """A file of what is in the compressed file; reading it may raise what ``damage_errors`` translates."""
    if compression == "gzip":
        from isal import igzip  # noqa: PLC0415 - three times as fast as zlib, and not needed where nothing is compressed

        return igzip.IGzipFile(fileobj=file, mode="rb")
    import pyarrow as pa  # noqa: PLC0415 - bz2 and zstd without another package; it tells a stream that was cut short

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), compression)


@contextmanager
def damage_errors(url: str, compression: Compression) -> Iterator[None]:
    """Translate what damage in a compressed stream raises.

    Raises:
        StorageError: the stream is damaged or was cut short.
    """
    from isal.isal_zlib import error as isal_error  # noqa: PLC0415

    try:
        yield
    except (EOFError, isal_error) as error:  # type: ignore[misc] # isal's stubs call its exception a value
        raise _damaged(url, compression, error) from error
    except OSError as error:
        if error.errno is not None:  # the store's own, not the decompressor's
            raise
        raise _damaged(url, compression, error) from error


def _damaged(url: str, compression: Compression, error: Exception) -> StorageError:
    return StorageError(
        f"cannot decompress {url}: {error}; it is damaged, cut short, or not {compression}: "
        'write it again, or set TransformInput.CompressionType to "None" if it is not compressed'
    )
