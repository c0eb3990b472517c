"""The bytes of a tar archive as they come out of gzip, bounded: a small hostile file cannot fill the memory."""

from __future__ import annotations

import os
import tarfile
from typing import IO, Final

BLOCK_BYTES: Final = 512
CHUNK_BYTES: Final = 1024 * 1024
# One member's headers, pax attributes included. tarfile reads a header in one piece, so this bounds memory as well.
_MAX_HEADER_BYTES: Final = 256 * 1024


class TooLargeError(Exception):
    """More bytes came out than the limits allow."""


class TarStream:
    """The uncompressed archive, forwards only, as tarfile reads it.

    Raises ``tarfile.ReadError`` for a header over the limit, ``TooLargeError`` for a stream over it.

    Attributes:
        position: how many bytes have come out so far.
        in_contents: whether a member's contents are being read; else what is read counts as header.
        last_block: the last header block that was read; zeros at the archive's end mark.
    """

    def __init__(self, source: IO[bytes], max_stream_bytes: int) -> None:
        self._source = source
        self._max_stream_bytes = max_stream_bytes
        self._header_bytes = 0
        self.position = 0
        self.in_contents = False
        self.last_block = b""

    def start_member(self) -> None:
        """Count header bytes anew, up to the next member's contents."""
        self._header_bytes = 0
        self.in_contents = False

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self.position

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Skip forwards to a position; a position behind this one is an error, as no sound archive leads back."""
        # Hostile sizes lead backwards (CVE-2025-8194), which on a plain file is a loop without end.
        if whence != os.SEEK_SET or position < self.position:
            raise tarfile.ReadError(f"a header leads back from byte {self.position} to byte {position}")
        while self.position < position and self._take(min(CHUNK_BYTES, position - self.position)):
            pass
        return self.position

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        if self.in_contents:
            return self._take(n_bytes)
        self._header_bytes += n_bytes
        if n_bytes < 0 or self._header_bytes > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has {self._header_bytes} bytes, over the limit of {_MAX_HEADER_BYTES}")
        self.last_block = self._take(n_bytes)
        return self.last_block

    def drain(self) -> None:
        """Read what follows the end mark, which is where gzip keeps its checksum."""
        while self._take(CHUNK_BYTES):
            pass

    def _take(self, n_bytes: int) -> bytes:
        data = self._source.read(max(n_bytes, 0))
        self.position += len(data)
        if self.position > self._max_stream_bytes:
            raise TooLargeError
        return data
