"""Where a record begins in its object, for the error that names it: looked up only then, since no mini-batch carries it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from rayxform.core.ranges import Recipe
from rayxform.spec import TransformJob
from rayxform.storage.listing import list_inputs
from rayxform.storage.objects import InputObject
from rayxform.storage.reading import read_chunks


def find_input(job: TransformJob, file: int, key: str) -> InputObject | None:
    """An input by its place in the job's listing, or None if something else is there by now.

    Raises:
        InputNotFoundError: nothing is there any more.
        StorageError: it cannot be listed.
    """
    is_manifest, is_compressed = job.s3_data_type == "ManifestFile", job.compression_type != "None"
    inputs = list_inputs(job.input_uri, job.output_uri, manifest=is_manifest, compressed=is_compressed).inputs
    return inputs[file] if file < len(inputs) and inputs[file].key == key else None


def find_offset(recipe: Recipe, source: InputObject, mini_batch_offset: int, index: int) -> int | None:
    """The first byte of a record of a mini-batch, from its object's first, or None if it is not there any more.

    Args:
        recipe: the job's recipe.
        source: the object.
        mini_batch_offset: the first byte of the mini-batch's first record.
        index: the record's place in the mini-batch, from 0.

    Raises:
        StorageError: the object cannot be read.
    """
    return next(islice(_offsets(recipe, source, mini_batch_offset), index, None), None)


def _offsets(recipe: Recipe, source: InputObject, begin: int) -> Iterator[int]:
    start = 0 if source.compression else begin
    splitter = recipe.splitter(start, aligned=True)
    for chunk in read_chunks(source, max(start - 1, 0)):
        yield from (offset for offset in splitter.feed(chunk).offsets if offset >= begin)
    yield from (offset for offset in splitter.flush().offsets if offset >= begin)
