"""Records found by their offsets, and put beside what was written of them, without running anything."""

import gzip

import pytest

from rayxform.core.framing import recordio_frame, tfrecord_frame
from rayxform.pages.records import RECORD_BYTES, RecordReader
from rayxform.pages.samples import Sampler
from rayxform.pipeline.file_states import NamedFile
from rayxform.pipeline.planning import output_of
from rayxform.spec import parse_job
from rayxform.storage.listing import InputFinder

FRAMES = {"Line": lambda record: record + b"\n", "TFRecord": tfrecord_frame, "RecordIO": recordio_frame}


@pytest.mark.parametrize("compression", ["None", "Gzip"])
@pytest.mark.parametrize("split", FRAMES)
def test_the_record_at_an_offset_is_the_one_that_begins_there(workspace, split, compression):
    first, *rest = (FRAMES[split](b'{"id":%d,"x":"%s"}' % (number, b"y" * 70_000)) for number in range(3))
    data = b"".join([first, *rest])
    workspace.write("a", gzip.compress(data) if compression == "Gzip" else data)
    job = parse_job(workspace.members(TransformInput__SplitType=split, TransformInput__CompressionType=compression))
    source = InputFinder(job.input_uri, compressed=compression == "Gzip").find("a")
    view = RecordReader(job).at(source, len(first))
    assert view.text.startswith('{\n  "id": 1,\n  "x": "yyy')
    assert "(70,000 characters)" in view.text
    assert '"id": 0' in RecordReader(job).at(source, 0).text


def test_what_is_too_long_or_gone_is_said_to_be(workspace):
    workspace.write("a", b"1\n" + b"x" * 3 * RECORD_BYTES + b"\n2\n")
    job = parse_job(workspace.members())
    source = InputFinder(job.input_uri).find("a")
    assert "more than 524,288" in RecordReader(job).at(source, 2).note
    assert "has changed" in RecordReader(job).at(source, source.size).note


@pytest.mark.parametrize(
    ("changes", "written", "shown"),
    [
        ({}, b"5\n6\n", "5"),
        ({}, b"5,6", ""),
        ({"DataProcessing__JoinSource": "Input", "TransformOutput__AssembleWith": "Line"}, b"1,2,5\n3,4,6\n", "1,2,5"),
    ],
)
def test_rows_are_beside_predictions_only_where_it_is_known_whose_they_are(workspace, changes, written, shown):
    path = workspace.write("a.csv", b"1,2\n3,4\n")
    (workspace.folder / "output").mkdir()
    (workspace.folder / "output/a.csv.out").write_bytes(written)
    members = {"TransformInput__ContentType": "text/csv", "TransformOutput__Accept": "text/csv"} | changes
    job = parse_job(workspace.members(**members))
    sampler = Sampler(job, output_of(job), InputFinder(job.input_uri))
    file = NamedFile(0, "a.csv", 1, 2, 8, len(written), path.stat().st_mtime)
    samples, left_out = sampler.sample([file], set())
    if not shown:
        assert (samples, "not one line for each record" in left_out) == ([], True)
        return
    assert [sample.record.text for sample in samples] == ["1,2", "3,4"]
    assert samples[0].prediction.text == shown
