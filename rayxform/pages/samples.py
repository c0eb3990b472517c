"""Records beside their predictions: some of the first of the outputs that have appeared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from rayxform.core.joining import PassThrough
from rayxform.core.ranges import Recipe
from rayxform.core.sources import OUTPUT
from rayxform.core.splitting import LineSplitter
from rayxform.errors import RayxformError
from rayxform.pages.records import RecordReader, RecordView, view_of
from rayxform.pages.view import Sample
from rayxform.pipeline.file_states import NamedFile
from rayxform.pipeline.planning import make_recipe
from rayxform.spec import TransformJob
from rayxform.storage.edge import open_filesystem, storage_errors
from rayxform.storage.listing import InputFinder
from rayxform.storage.objects import InputObject, modified_at, object_version
from rayxform.storage.publishing import OutputFolder
from rayxform.storage.reading import read_chunks
from rayxform.storage.retrying import info_of, kind_of

SAMPLES = 12
FROM_ONE = 3
"""How many come from one file, where there are more files than are needed."""
CLOCK_S = 2.0
"""By how much an input may be younger than its output: a store tells times in whole seconds."""
_OUTPUT_BYTES = 4 * 1024 * 1024
_COUNTED_BYTES = 1024 * 1024
_CHUNK_BYTES = 64 * 1024


class Sampler:
    """Puts records beside their predictions, where it is known which belongs to which."""

    def __init__(self, job: TransformJob, output: OutputFolder, finder: InputFinder) -> None:
        self._job = job
        self._output = output
        self._finder = finder
        self._reader = RecordReader(job)
        self._recipe: Recipe = make_recipe(job)

    def why_not(self, bad_objects: set[str] | None) -> str:
        """Why no records can be shown beside predictions; "" if they can."""
        if self._job.partition_by:
            return "A partitioned data set has no .out beside each input, so no records are shown beside their predictions."
        if bad_objects is None and self._job.on_record_error == "skip":
            return "So many records were left out (OnRecordError: skip) that it is not known which prediction is whose."
        return ""

    def sample(self, files: Sequence[NamedFile], bad_objects: set[str] | None) -> tuple[list[Sample], str]:
        """Some records of files that are done, beside their predictions, and why those of some are not shown.

        Args:
            files: the files.
            bad_objects: the keys of those with errors.
        """
        if reason := self.why_not(bad_objects):
            return [], reason
        is_skipping = self._job.on_record_error == "skip"
        able = [file for file in files if file.records and not (is_skipping and file.key in (bad_objects or ()))]
        each = max(-(-SAMPLES // len(able)), FROM_ONE) if able else 0
        samples: list[Sample] = []
        reasons: list[str] = []
        for file in able[:SAMPLES]:
            try:
                samples += self._of_file(file, min(each, SAMPLES - len(samples), file.records))
            except RayxformError as error:
                reasons.append(f"{file.key}: {error}")
            if len(samples) >= SAMPLES:
                break
        if len(able) < len(files) and is_skipping:
            reasons.append("files of which records were left out (OnRecordError: skip) are not shown")
        return samples, "; ".join(reasons[:3])

    def _of_file(self, file: NamedFile, count: int) -> Iterator[Sample]:
        source, published = self._finder.find(file.key), self._published(file)
        younger = source is not None and (modified_at(source.url) or file.at) > file.at + CLOCK_S
        if source is None or younger:
            raise RayxformError("the input is not what it was when the job read it")
        if published is None:
            raise RayxformError("the output is not what the job wrote")
        results = self._results(published, file, count)
        for index, (record, result) in enumerate(zip(self._reader.first(source, count), results, strict=False)):
            yield _sample(file.key, index + 1, record, result)

    def _published(self, file: NamedFile) -> InputObject | None:
        """A file's output, if it is the one that the job wrote."""
        url = self._output.output_url(file.key)
        filesystem, path = open_filesystem(url)
        with storage_errors("read", url):
            info = info_of(filesystem, path) if kind_of(filesystem, path) == "file" else None
        if info is None or int(info["size"]) != file.output_bytes:
            return None
        return InputObject(url, file.key, int(info["size"]), object_version(info))

    def _results(self, published: InputObject, file: NamedFile, count: int) -> list[bytes]:
        """The first results, one for each record."""
        if self._job.split_type == "None":
            return [b"".join(_until(published, _OUTPUT_BYTES))]
        is_lines = self._recipe.processing.cuts_responses and not isinstance(self._recipe.processing, PassThrough)
        if not is_lines and published.size > _COUNTED_BYTES:
            raise RayxformError("its responses are written as they came, so it is not known which line is whose")
        lines = _lines(published, count if is_lines else file.records + 1)
        if not is_lines and len(lines) != file.records:
            raise RayxformError("its responses are written as they came, and have not one line for each record")
        return lines[:count]


def _sample(key: str, number: int, record: RecordView, result: bytes) -> Sample:
    """A record beside its result; of a joined one the prediction comes first."""
    try:
        attributes = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        attributes = {}
    if OUTPUT not in attributes:
        return Sample(key, number, record, view_of(result))
    output = view_of(result) if len(attributes) > 1 else None
    return Sample(key, number, record, view_of(bytes(attributes[OUTPUT])), output)


def _until(source: InputObject, n_bytes: int) -> Iterator[bytes]:
    for chunk in read_chunks(source, 0, min(n_bytes, source.size), _CHUNK_BYTES):
        yield chunk[:n_bytes]
        n_bytes -= len(chunk)
        if n_bytes <= 0:
            return


def _lines(source: InputObject, count: int) -> list[bytes]:
    splitter = LineSplitter()
    found: list[bytes] = []
    for chunk in _until(source, _OUTPUT_BYTES):
        for records in splitter.feed(chunk):
            found += records.data
        if len(found) >= count:
            return found
    if source.size <= _OUTPUT_BYTES:
        found += splitter.flush().data
    return found
