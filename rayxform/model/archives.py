"""A model.tar.gz becomes a folder, safely, and the entry point in it is found and checked without running it.

An archive may come from anybody, so nothing in it is trusted. Three things make the result safe on every Python, not
only where tarfile's ``data`` filter (PEP 706) is there and free of its own bugs (CVE-2025-4517 and others got past it
through chains of symbolic links):

1. No member is written through a link. Symbolic links are made last, when every file is already in its place, and a
   member whose path passes through an earlier link is refused.
2. A symbolic link's target is followed by name: it may not leave the folder and may not pass through another link, so
   what the name says is where it leads. A hard link may only name a file that this archive has already brought.
3. Sizes are counted on the bytes that come out, never on what a header claims; headers have a limit of their own.

The ``data`` filter is asked as well where the interpreter has it.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, Final, NoReturn, cast

from rayxform.cache import keep
from rayxform.errors import ModelSourceError
from rayxform.model.tar_stream import BLOCK_BYTES, CHUNK_BYTES, TarStream, TooLargeError

MAX_MODEL_BYTES: Final = 30 * 1024**3
"""What a model may unpack to: AWS gives a batch transform instance a volume of 30 GB ("Storage in Batch Transform")."""
MAX_MODEL_MEMBERS: Final = 100_000

_MAX_PATH_CHARACTERS: Final = 4096
# What a member may cost beside its contents: its own block, a pax header with a long path, padding.
_MEMBER_OVERHEAD_BYTES: Final = 8 * 1024
# What tarfile and zlib raise on bytes that are no archive; the last four come from headers that hold nonsense.
_DAMAGE: Final = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    RecursionError,
)
_OTHER_FORMATS: Final = {
    b"PK": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstandard file",
    b"version https://git-lfs": "a Git LFS pointer instead of the file",
    b"<": "an HTML or XML page",
}


def unpack_model(
    archive: Path, target_root: Path, *, max_bytes: int = MAX_MODEL_BYTES, max_members: int = MAX_MODEL_MEMBERS
) -> Path:
    """Unpack a model archive into a folder that is named by the archive's contents, or reuse that folder.

    Processes may do this at the same time: one unpacks, the others wait for it. A folder that bears its name is always whole,
    and stays for as long as they use it (``cache``).

    Args:
        archive: a ``.tar.gz``, ``.tgz`` or plain ``.tar``; the contents decide, not the name.
        target_root: the folder below which models are unpacked; made where it is missing.
        max_bytes: what the members may come to on disk, together, in bytes.
        max_members: how many members the archive may have.

    Returns:
        ``target_root/<first 32 hex digits of the archive's SHA-256>``.

    Raises:
        ModelSourceError: the archive is missing, unreadable, truncated or damaged, or holds something unsafe: a member
            outside its folder, a link that leads out, a device or pipe, more bytes or members than allowed.
    """
    if not archive.exists():
        raise ModelSourceError(f"{archive} does not exist. Check Model.ModelDataUrl.")
    try:
        with archive.open("rb") as file:
            folder = target_root / file_digest(file)[:32]
            file.seek(0)
            return keep(folder, lambda new: _Unpacking(archive, file, new, max_bytes, max_members).run())
    except OSError as error:
        raise ModelSourceError(
            f"{archive} cannot be unpacked below {target_root}: {error}. "
            "Check that the one can be read and that the other can be written and has room."
        ) from error


def file_digest(file: BinaryIO) -> str:
    """The SHA-256 of the rest of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


class _Unpacking:
    """One archive on its way into a folder that is not there yet."""

    def __init__(self, archive: Path, file: BinaryIO, folder: Path, max_bytes: int, max_members: int) -> None:
        self._archive = archive
        self._file = file
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_members = max_members
        self._written_bytes = 0
        self._n_members = 0
        self._member = "none"
        self._kinds: dict[tuple[str, ...], str] = {}
        self._links: dict[tuple[str, ...], str] = {}

    def run(self) -> None:
        self._folder.mkdir(mode=0o700)
        try:
            self._extract_all()
        except EOFError as error:
            self._fail_as_truncated(error)
        except TooLargeError:
            self._refuse_as_too_large()
        except _DAMAGE as error:
            self._fail_as_damaged(error)

    def _extract_all(self) -> None:
        stream = TarStream(self._open(), self._max_bytes + (self._max_members + 1) * _MEMBER_OVERHEAD_BYTES)
        # It has what tarfile calls on a file that it reads; typeshed asks for a whole IO.
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as tar:
            for member in _members(tar, stream):
                self._extract(tar, member, stream)
        # tarfile ends quietly at a header that it cannot read, so the end mark is asked for.
        if len(stream.last_block) < BLOCK_BYTES:
            raise EOFError
        if any(stream.last_block):
            raise tarfile.ReadError(f"no valid header at byte {stream.position - BLOCK_BYTES} of the unpacked archive")
        stream.drain()
        if self._n_members == 0:
            raise ModelSourceError(f"{self._archive} holds no member. Pack the model again.")
        self._make_links()

    def _open(self) -> IO[bytes]:
        start = self._file.read(BLOCK_BYTES)
        self._file.seek(0)
        if not start:
            raise EOFError
        if start.startswith(b"\x1f\x8b"):
            return cast("IO[bytes]", gzip.GzipFile(fileobj=self._file, mode="rb"))
        if start[257:262] == b"ustar":
            return self._file
        found = next((name for magic, name in _OTHER_FORMATS.items() if start.lstrip().startswith(magic)), None)
        raise ModelSourceError(
            f"{self._archive} is neither a gzip nor a tar file: byte 0 on reads {start[:8]!r}"
            f"{f', so it is {found}' if found else ''}. Pack the model with: tar -czf model.tar.gz -C MODEL_FOLDER ."
        )

    def _extract(self, tar: tarfile.TarFile, member: tarfile.TarInfo, stream: TarStream) -> None:
        self._member = f"member {member.name!r}"
        self._n_members += 1
        if self._n_members > self._max_members:
            self._refuse(f"is one more than the {self._max_members:,} members allowed", "Leave out what is not the model")
        # The folder itself; the SageMaker Python SDK packs it as "/", of which tarfile leaves nothing.
        parts = self._parts(member.name) if member.name or not member.isdir() else ()
        if not parts and member.isdir():
            return
        self._claim(parts, self._kind(member))
        linked = self._linked_file(member) if member.islnk() else None
        if member.issym():
            self._check_link(parts, member.linkname, set())
        self._ask_data_filter(member)
        path = self._folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        if member.isdir():
            path.mkdir(exist_ok=True)
        elif member.issym():
            self._links[parts] = member.linkname
        elif linked is None:
            stream.in_contents = True
            self._write_file(tar, member, path)
        elif linked != path:
            path.unlink(missing_ok=True)
            os.link(linked, path)

    def _kind(self, member: tarfile.TarInfo) -> str:
        if member.isdir():
            return "folder"
        if member.issym():
            return "link"
        if not (member.isfile() or member.islnk()):
            found = "a pipe" if member.isfifo() else "a device" if member.isdev() else f"of kind {member.type!r}"
            self._refuse(f"is {found}", "Pack files, folders and links only")
        return "file"

    def _parts(self, name: str) -> tuple[str, ...]:
        if name.startswith("/") or not name or "\0" in name or Path(name).is_absolute():
            self._refuse("has an absolute or impossible path", "Pack with paths relative to the model folder")
        if len(name) > _MAX_PATH_CHARACTERS:
            self._refuse(f"has a path of {len(name)} characters, over the limit of {_MAX_PATH_CHARACTERS}", "Shorten it")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts:
            self._refuse("leads out of its folder with '..'", "Pack with paths relative to the model folder")
        return parts

    def _ask_data_filter(self, member: tarfile.TarInfo) -> None:
        data_filter = getattr(tarfile, "data_filter", None)  # 3.10.12, 3.11.4, 3.12 and later
        if data_filter is None:
            return
        try:
            data_filter(member, str(self._folder))
        except tarfile.TarError as error:
            self._refuse(f"is unsafe: {error}", "Pack the model again without it")

    def _claim(self, parts: tuple[str, ...], kind: str) -> None:
        """Note what the path is to be, and refuse one that passes through, or takes the place of, another kind."""
        for end in range(1, len(parts)):
            if self._kinds.setdefault(parts[:end], "folder") != "folder":
                place, found = "/".join(parts[:end]), self._kinds[parts[:end]]
                self._refuse(f"passes through {place!r}, which is a {found}", "Pack the folder itself instead")
        before = self._kinds.setdefault(parts, kind)
        if before != kind or not parts:
            self._refuse(f"is a {kind} where the archive already has a {before}", "Pack each path once")

    def _write_file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        if member.size > self._max_bytes - self._written_bytes:
            self._refuse_as_too_large()
        contents = tar.extractfile(member)
        if contents is None:
            raise tarfile.ReadError("a file without contents")
        # tar lets a later member replace an earlier one; unlinking first keeps that away from the file's hard links.
        path.unlink(missing_ok=True)
        with path.open("xb") as out:
            while chunk := contents.read(CHUNK_BYTES):
                self._written_bytes += len(chunk)
                if self._written_bytes > self._max_bytes:
                    self._refuse_as_too_large()
                out.write(chunk)
        # Only the owner's right to execute survives: no setuid, no setgid, nothing that others may write.
        path.chmod(0o755 if member.mode & 0o100 else 0o644)

    def _linked_file(self, member: tarfile.TarInfo) -> Path:
        parts = self._parts(member.linkname)
        path = self._folder.joinpath(*parts)
        if self._kinds.get(parts) != "file" or not path.is_file():
            self._refuse(
                f"is a hard link to {member.linkname!r}, which is no file that comes before it in the archive",
                "Pack the file itself (tar --hard-dereference)",
            )
        return path

    def _make_links(self) -> None:
        links = {_folded(parts) for parts in self._links}
        for parts, target in self._links.items():
            self._member = f"member {'/'.join(parts)!r}"
            self._check_link(parts, target, links)
            path = self._folder.joinpath(*parts)
            path.unlink(missing_ok=True)
            path.symlink_to(target)

    def _check_link(self, parts: tuple[str, ...], target: str, links: set[tuple[str, ...]]) -> None:
        remedy = "Pack the file itself (tar --dereference)"
        if target.startswith("/") or not target or "\0" in target or Path(target).is_absolute():
            self._refuse(f"is a link to {target!r}, outside the model folder", remedy)
        steps = [step for step in target.split("/") if step not in ("", ".")]
        at = list(parts[:-1])
        for n_left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
            if step != "..":
                at.append(step)
            elif at:
                at.pop()
            else:
                self._refuse(f"is a link to {target!r}, outside the model folder", remedy)
            if n_left and _folded(tuple(at)) in links:
                self._refuse(f"is a link to {target!r}, which passes through another link", remedy)

    def _refuse(self, reason: str, remedy: str) -> NoReturn:
        raise ModelSourceError(f"{self._archive}: {self._member} {reason}. {remedy}.")

    def _refuse_as_too_large(self) -> NoReturn:
        self._refuse(
            f"makes the unpacked archive larger than the {self._max_bytes:,} bytes allowed",
            "Leave out what is not the model",
        )

    def _progress(self) -> str:
        size = os.fstat(self._file.fileno()).st_size
        return (
            f"{min(self._file.tell(), size):,} of its {size:,} bytes were read, "
            f"{self._n_members:,} members were begun, the last of them {self._member}"
        )

    def _fail_as_truncated(self, cause: BaseException) -> NoReturn:
        raise ModelSourceError(
            f"{self._archive} ends too early: {self._progress()}. "
            "Copy it again and compare its size with the original's, or pack it again."
        ) from cause

    def _fail_as_damaged(self, cause: BaseException) -> NoReturn:
        if str(cause) in ("unexpected end of data", "truncated header", "empty file"):
            self._fail_as_truncated(cause)
        raise ModelSourceError(
            f"{self._archive} is damaged ({cause}): {self._progress()}. "
            "Copy it again, or pack it again; `tar -tzf` on a good one lists its members."
        ) from cause


def _members(tar: tarfile.TarFile, stream: TarStream) -> Iterator[tarfile.TarInfo]:
    # Opening has read the first header. Where that is the end mark already, Python 3.10 would not find its way on.
    while any(stream.last_block):
        stream.start_member()
        member = tar.next()
        if member is None:
            return
        yield member


def _folded(parts: tuple[str, ...]) -> tuple[str, ...]:
    """A path as a file system that ignores case and composition sees it."""
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
