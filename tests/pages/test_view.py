"""What a job's page shows, read from the state folders of real jobs."""

import base64
import json
import os
import random
from dataclasses import replace

import pytest

import rayxform
from rayxform.core.examples import write_example
from rayxform.core.framing import tfrecord_frame
from rayxform.errors import JobError
from rayxform.pages import Action, History, JobLine, read_view, render_error, render_job, render_jobs
from rayxform.spec import parse_job
from rayxform.storage.event_log import Event, EventLog
from rayxform.storage.lease import take_lease
from rayxform.storage.publishing import OutputFolder
from tests.pages.conftest import HOSTILE, image, line, run, write_inputs


def counts(view):
    return {group.name: group.count for group in view.files}


def errors(view):
    return {shown.entry.object: shown for group in view.errors for shown in group.errors}


def test_a_job_that_failed_in_part_is_shown_with_its_files_errors_and_records(shown):
    _, job = shown
    view = read_view(job)
    assert (view.name, view.status.status) == ("shown", "Failed")
    assert counts(view) == {"Failed": 2, "Running": 0, "Waiting": 0, "Done": 4}
    assert (view.status.files_done, view.status.files, view.runs, view.workers) == (4, 6, 1, 1)
    assert 0.5 < view.share < 1
    assert [file.key for file in view.files[0].files] == ["deep/bad.jsonl", "poison.jsonl"]
    assert {group.kind: group.count for group in view.errors} == {"RecordError": 1, "InvocationError": 1}
    bad, poison = errors(view)["deep/bad.jsonl"], errors(view)["poison.jsonl"]
    assert (bad.entry.record, bad.entry.offset) == (2, len(line(1)) + 1)
    assert bad.record.text == '{"id": <b>no JSON</b>'
    assert "cannot digest this" in poison.entry.traceback
    assert poison.record.pictures[0].caption.startswith("PNG, 24 x 24")
    assert any("Rayxform.OnRecordError=skip" in step for step in view.next_steps)
    assert dict(view.settings)["Model.Environment.API_TOKEN"] == "hidden"
    assert [chart.name for chart in view.charts] == ["rate", "queue"]
    assert sum(seconds for _, seconds in view.work) > 0


def test_each_record_is_beside_its_own_prediction(shown):
    workspace, job = shown
    samples = read_view(job).samples
    assert len(samples) == 10  # three of each of the three files, and all of the one that holds one
    for sample in samples:
        record = workspace.folder.joinpath("input", sample.key).read_bytes().splitlines()[sample.number - 1]
        assert sample.prediction.text == str(len(record))
        assert json.loads(record)["inputs"] == sample.record.pictures[0].data_url.removeprefix("data:image/png;base64,")
    assert {sample.key for sample in samples} == {"a.jsonl", "b.jsonl", "c.jsonl", HOSTILE}


def test_what_users_wrote_is_escaped(shown):
    _, job = shown
    page = render_job(read_view(job), live=True, actions=[Action("Stop <b>", "/jobs/x?a=1&b=2")], nonce="abc")
    for hostile in ("<script>alert", "<b>no JSON", "<img src=x", "<b>\u202e", "Stop <b>", "\u202e", "hunter2"):
        assert hostile not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script") == 1
    assert 'action="/jobs/x?a=1&amp;b=2"' in page
    assert "<script>x" not in render_error(404, "no job <script>x</script>")


def test_the_list_of_jobs_is_the_newest_first_and_an_empty_one_says_how_to_begin():
    jobs = [JobLine("old", "Completed", 1.0, 75.0, 3, 3, 1_000), JobLine("new/<b>", "InProgress", 2.0)]
    page = render_jobs(jobs)
    assert page.index("new/&lt;b&gt;") < page.index(">old<")
    assert 'href="/jobs/new%2F%3Cb%3E"' in page
    assert "1 min 15 s" in page
    assert "3 of 3" in page
    empty = render_jobs([])
    assert "endpoint_url" in empty
    assert "rayxform run" in empty


def test_a_job_that_never_ran_is_an_error(workspace):
    with pytest.raises(JobError, match="never run"):
        read_view(parse_job(workspace.members()))


def test_a_job_that_has_just_begun_is_shown(workspace):
    job = parse_job(workspace.members())
    lease = take_lease(OutputFolder(job.output_uri, "job").state_url, {})
    try:
        view = read_view(job)
    finally:
        lease.release()
    assert (view.status.status, view.created_at, view.charts) == ("InProgress", None, ())
    assert 'data-live="2"' in render_job(view, live=True)


def test_an_interrupted_job_says_how_it_goes_on_and_a_second_run_is_taken_in(workspace, ray_address):
    write_inputs(workspace)
    job = run(workspace)
    log = workspace.folder / "output/.rayxform/job/events.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]) + b'{"Event":"End","Ti')  # as after SIGKILL
    history = History(job)
    view = history.update()
    assert (view.status.status, "SIGKILL" in view.status.message) == ("Stopped", True)
    assert "goes on" in view.next_steps[0]
    for name in ("deep/bad.jsonl", "poison.jsonl"):
        workspace.write(name, line(7))
    run(workspace)
    view = history.update()
    assert (view.status.status, view.runs, view.errors, view.share) == ("Completed", 2, [], 1.0)
    assert counts(view) == {"Failed": 0, "Running": 0, "Waiting": 0, "Done": 6}
    assert len(view.charts[0].marks) == 1
    rayxform.run(job, workers=1, restart=True)
    view = history.update()
    assert (view.runs, view.status.records, view.charts[0].marks) == (1, 63, [])


@pytest.mark.parametrize("mode", ["skip", "placeholder"])
def test_records_that_are_let_pass_are_counted_and_shift_no_prediction(workspace, ray_address, mode):
    write_inputs(workspace)
    (workspace.folder / "input/b.jsonl").unlink()
    view = read_view(run(workspace, Rayxform__OnRecordError=mode))
    assert view.status.status == "Completed"
    assert sum(group.count for group in view.errors) == 2
    keys = {sample.key for sample in view.samples}
    assert ("poison.jsonl" in keys) == (mode == "placeholder")
    assert ("left out" in view.samples_left_out) == (mode == "skip")
    for sample in view.samples:
        if sample.key == "poison.jsonl" and sample.number == 3:
            assert "error" in sample.prediction.text
        elif sample.key != "deep/bad.jsonl":
            record = workspace.folder.joinpath("input", sample.key).read_bytes().splitlines()[sample.number - 1]
            assert sample.prediction.text == str(len(record))


def test_a_job_on_s3_is_read_as_its_log_grows(workspace, ray_address, bucket, tmp_path):
    write_inputs(workspace)
    for path in (workspace.folder / "input").rglob("*.jsonl"):
        bucket.put("in2/x.jsonl", line(1))
        bucket.put(f"in/{path.relative_to(workspace.folder / 'input').as_posix()}", path.read_bytes())
    changes = {
        "TransformInput__DataSource__S3DataSource__S3Uri": f"{bucket.url}/in",
        "TransformOutput__S3OutputPath": f"{bucket.url}/out",
    }
    job = run(workspace, **changes)
    history = History(job)
    view = history.update()
    assert counts(view) == {"Failed": 2, "Running": 0, "Waiting": 0, "Done": 5}
    assert "takes in 1 objects outside of the folder" in view.warnings[0]
    assert errors(view)["deep/bad.jsonl"].record.text == '{"id": <b>no JSON</b>'
    assert len(view.samples) == 11
    bucket.proxy.reset()
    assert replace(history.update(), shown_at=0) == replace(view, shown_at=0)
    assert bucket.proxy.count("GET ") <= 8  # nothing is read again but the beginnings of what grows
    run(workspace, **changes)
    assert history.update().runs == 2
    path = rayxform.report(job, tmp_path / "report.html")
    assert "6 failed" not in path.read_text()
    assert "deep/<wbr>bad.jsonl" in path.read_text()


def test_images_in_tfrecords_are_shown_beside_their_predictions(workspace, ray_address):
    records = [write_example({"image": [image(color)], "id": [number]}) for number, color in enumerate(("red", "blue"))]
    workspace.write("a.tfrecord", b"".join(map(tfrecord_frame, [*records, write_example({"text": [b"poison"]})])))
    model = workspace.folder / "model"
    model.mkdir()
    (model / "inference.py").write_text(
        "import rayxform\n"
        "def model_fn(folder):\n    return None\n"
        "def transform_fn(model, body, content_type, accept):\n"
        "    (example,) = rayxform.read_examples(body)\n"
        "    return str(example['id'][0])\n"
    )
    view = read_view(
        run(
            workspace,
            Model={"SourceDir": str(model)},
            TransformInput__SplitType="TFRecord",
            TransformInput__ContentType="application/x-tfexample",
            TransformOutput__Accept="application/jsonlines",
            DataProcessing__JoinSource="None",
            BatchStrategy="SingleRecord",
            Rayxform__OnRecordError="placeholder",
        )
    )
    assert view.status.status == "Completed", view.status.message
    (error,) = errors(view).values()
    assert error.entry.record == 3
    assert '"text"' in error.record.text
    assert [sample.prediction.text for sample in view.samples[:2]] == ["0", "1"]
    for sample, color in zip(view.samples, ("red", "blue")):
        assert sample.record.pictures[0].data_url.endswith(base64.b64encode(image(color)).decode())


def test_a_folder_of_images_is_shown_as_images(workspace, ray_address):
    for number, kind in enumerate(("PNG", "JPEG", "GIF", "WEBP")):
        workspace.write(f"{number}.{kind.lower()}", image("blue", 40, kind))
    workspace.write("4.png", b"\x89PNG\r\n\x1a\n, and so on")
    workspace.write("5.png", image("red")[:-20] + random.Random(1).randbytes(300_000))
    view = read_view(
        run(
            workspace,
            TransformInput__SplitType="None",
            TransformInput__ContentType="image/png",
            DataProcessing__JoinSource="None",
            BatchStrategy="SingleRecord",
            Rayxform__Compatibility="aws",
        )
    )
    assert view.status.status == "Completed", view.status.message
    shown = {sample.key: sample.record.pictures[0] for sample in view.samples}
    for number, kind in enumerate(("PNG", "JPEG", "GIF", "WEBP")):
        assert shown[f"{number}.{kind.lower()}"].data_url.startswith(f"data:image/{kind.lower()};base64,")
    assert "damaged" in shown["4.png"].caption
    assert "more than 256 KiB" in shown["5.png"].caption
    assert shown["4.png"].data_url == shown["5.png"].data_url == ""


def test_predictions_are_not_shown_beside_an_input_that_changed_since(workspace, ray_address):
    workspace.write("a.jsonl", line(1))
    job = run(workspace)
    assert len(read_view(job).samples) == 1
    path = workspace.write("a.jsonl", line(2))
    os.utime(path, (path.stat().st_mtime + 60,) * 2)
    view = read_view(job)
    assert (view.samples, "not what it was" in view.samples_left_out) == ((), True)


@pytest.mark.long
def test_a_long_job_with_many_files_stays_bounded(workspace):
    """200,000 files, a part each, of which each thousandth fails, over two weeks."""
    job = parse_job(workspace.members())
    output = OutputFolder(job.output_uri, "job")
    n_files = 200_000
    log = EventLog(output.state_url, {})
    (workspace.folder / "output/.rayxform/job").mkdir(parents=True)
    (workspace.folder / "output/.rayxform/job/inputs.jsonl").write_text(
        "".join(f'["file-{number}",100,"v"]\n' for number in range(n_files))
    )
    log.open()
    log.append(Event("Plan", 0.0, files=n_files, input_bytes=100 * n_files))
    history = History(job)
    for number in range(n_files - 1000):
        key = f"file-{number}"
        log.append(Event("Part", 6.0 * number, file=number, object=key, records=3, input_bytes=99, requests=1))
        if number % 1000 == 0:
            log.append(Event("FileFailed", 6.0 * number, file=number, object=key))
        elif number % 1000 != 1:
            log.append(Event("FileDone", 6.0 * number, file=number, object=key, records=3, output_bytes=9))
    log.close()
    view = history.update()
    assert counts(view) == {"Failed": 199, "Running": 199, "Waiting": 1000, "Done": n_files - 1398}
    assert view.bytes_through == 100 * (n_files - 1000)
    assert [len(group.files) for group in view.files] == [199, 199, 200, 200]
    assert view.files[2].files[0].key == f"file-{n_files - 1000}"
    assert all(len(chart.values) <= 120 for chart in view.charts)
    assert view.charts[0].summary.startswith("Records per second, over 13 d 19 h: at most 0.5")
    assert len(render_job(view, live=True)) < 500_000


def test_a_picture_in_a_data_url_is_found_deep_in_a_record(workspace):
    from rayxform.pages.records import view_of

    data = base64.b64encode(image("red")).decode()
    view = view_of(json.dumps({"a": [{"b": f"data:image/png;base64,{data}"}], "n": 1.0}).encode())
    assert [picture.name for picture in view.pictures] == ["a[0].b"]
    assert '"n": 1.0' in view.text
    assert view_of(b"\x00\x01\xff" * 100).note == "300 bytes that are no text"
    assert view_of(b'"' + b"\x1b[31m" + b'"').text == '"\u241b[31m"'
