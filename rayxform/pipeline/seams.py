"""Where the readers of one large object tell each other how far they came: a small actor, only for jobs that need it."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from rayxform.core.batching import Seam
from rayxform.pipeline.planning import ByteRange


class _Board:
    """Seams by file and range."""

    def __init__(self) -> None:
        self._seams: dict[tuple[int, int], Seam] = {}
        self._news = asyncio.Condition()

    async def tell(self, file: int, index: int, seam: Seam) -> None:
        async with self._news:
            self._seams[file, index] = seam
            self._news.notify_all()

    async def wait(self, file: int, index: int, timeout_s: float) -> Seam | None:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: (file, index) in self._seams), timeout_s)
            except asyncio.TimeoutError:
                return None
            return self._seams[file, index]


class SharedSeams:
    """A handle on a job's board; travels with every read task."""

    def __init__(self) -> None:
        # An async actor takes a call for every waiting reader at once.
        self._board: Any = ray.remote(num_cpus=0, max_concurrency=10_000)(_Board).remote()

    def tell(self, one: ByteRange, seam: Seam) -> None:
        """The range after ``one`` begins at ``seam``."""
        self._board.tell.remote(one.file, one.index + 1, seam)

    def wait(self, one: ByteRange, timeout_s: float) -> Seam | None:
        """Where ``one`` begins, or None if that is not known in time."""
        seam: Seam | None = ray.get(self._board.wait.remote(one.file, one.index, timeout_s))
        return seam
