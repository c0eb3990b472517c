"""What a worker, the driver and a zygote say to each other."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

STATUS = struct.Struct("=i")
"""What a zygote says: first a process id, or 0 for a refusal; then an exit code, negative for a signal, as Popen has it."""


class Place(msgspec.Struct, array_like=True):
    """What a process has to share with the zygote it is forked from, because libraries read it when they are imported.

    Attributes:
        environment: the model's variables, in the order of their names.
        threads: how many threads it computes with, or None.
    """

    environment: list[tuple[str, str]]
    threads: int | None

    @classmethod
    def of(cls, environment: Mapping[str, str], threads: int | None) -> Place:
        """That of a model's process."""
        return cls(sorted(environment.items()), threads)

    def encoded(self) -> str:
        """As it travels."""
        return msgspec.json.encode(self).decode()


class Birth(msgspec.Struct):
    """What a fork is to become.

    Attributes:
        place: as a str, to be compared.
        sys_path: its sys.path.
        variables: all of its environment variables.
        folder: its working folder.
        niceness: its priority.
        oom_score: how readily the kernel ends it where memory runs out.
    """

    place: str
    sys_path: list[str]
    variables: dict[bytes, bytes]
    folder: str
    niceness: int
    oom_score: str

    @classmethod
    def like_this_process(cls, place: Place, sys_path: list[str]) -> Birth:
        """What a child of this process would have."""
        return cls(
            place.encoded(),
            sys_path,
            dict(os.environb),
            str(Path.cwd()),
            os.getpriority(os.PRIO_PROCESS, 0),
            Path("/proc/self/oom_score_adj").read_text(),
        )

    def encoded(self) -> bytes:
        """As it travels."""
        return msgspec.msgpack.encode(self)
