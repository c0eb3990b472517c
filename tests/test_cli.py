"""The command: exit codes, what it prints, and that it can be stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jsonschema
import pytest

from rayxform import cli
from rayxform.cli.help_texts import DESCRIPTIONS, EPILOGS

ROOT = Path(__file__).parent.parent


def rayxform(*arguments, timeout_s=120):
    return subprocess.run(
        [sys.executable, "-m", "rayxform", *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s
    )


def test_help_has_examples_and_version_a_version():
    assert "rayxform run job.yaml" in rayxform("--help").stdout
    assert "--workers" in rayxform("run", "--help").stdout
    assert rayxform("--version").stdout == "rayxform 0.1.0\n"


COMMANDS = cli._commands_of(cli._parser())


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_each_commands_help_tells_of_that_command(name):
    text = COMMANDS[name].format_help()
    assert max(map(len, text.splitlines())) <= 120
    examples = text[text.index("examples:\n") :].splitlines()[1:]
    assert examples
    for line in examples:
        assert f"rayxform {name}" in line
        command = re.split(r"\s{3}|\)\"| > ", line.split("rayxform ")[1])[0].split(" | ")[-1]
        cli._parser().parse_args([*command.replace(">", "").split()])
    if "job" in {action.dest for action in COMMANDS[name]._actions}:
        assert re.search(r"^exit codes:\n  0 ", text, re.MULTILINE)
        assert re.search(r"^environment:\n  \S+  ", text, re.MULTILINE)


def test_the_variables_that_help_names_are_read_somewhere():
    named = set(re.findall(r"\b(RAYXFORM_[A-Z_]+|RAY_[A-Z_]+)\b", "".join(EPILOGS.values())))
    sources = "".join(path.read_text() for path in (ROOT / "rayxform").rglob("*.py") if path.name != "help_texts.py")
    assert named >= {"RAYXFORM_CACHE", "RAYXFORM_CACHE_MAX_GB", "RAY_ADDRESS"}
    assert all(f'"{name}"' in sources for name in named)


def test_help_does_not_wait_for_what_only_a_job_needs():
    code = "import sys\nfrom rayxform.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
    code += "print(*({'ray', 'torch', 'pyarrow', 'rich', 'shtab', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    for arguments in (["--help"], ["submit", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        assert "usage: rayxform" in done.stdout
        assert done.stderr.split() == []


def test_who_reads_no_further_is_no_error():
    """``rayxform schema | head -1``"""
    command = subprocess.Popen([sys.executable, "-m", "rayxform", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert command.stderr.read() == b""
    assert command.wait() == 1


def test_another_pipe_that_breaks_is_one():
    code = "import rayxform.__main__ as program\ndef main():\n    raise BrokenPipeError('of ours')\n"
    code += "program.main = main\nprogram.command()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "BrokenPipeError: of ours")


def test_the_schema_takes_a_good_job_and_refuses_a_misspelt_one(workspace):
    schema = json.loads(rayxform("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(workspace.members())
    assert not validator.is_valid(workspace.members(MaxPayloadInMb=1))


def test_plan_prints_requests_as_json_and_as_a_table(workspace):
    workspace.write("a.jsonl", b"1\n2\n3\n")
    job = workspace.job_file()
    planned = json.loads(rayxform("plan", job, "--json", "--set", "Rayxform.MaxRecordsPerBatch=2").stdout)
    file = {"Input": "a.jsonl", "Output": "a.jsonl.out", "Bytes": 6, "Records": 3, "Requests": 2}
    files = [file | {"RecordsPerRequest": [2, 1], "Error": None}]
    assert planned == {"Files": files, "Records": 3, "Requests": 2, "Warnings": []}
    assert "3 records in 1 requests" in rayxform("plan", job).stdout
    assert workspace.sent() == []


def test_check_shows_request_response_and_output_without_ray(workspace):
    workspace.write("a.jsonl", b'{"id":1}\n{"id":22}\n')
    job = workspace.job_file(DataProcessing__JoinSource="Input")
    report = json.loads(rayxform("check", job, "--json").stdout.splitlines()[-1])
    assert report["Request"] == '{"id":1}\n{"id":22}'
    assert report["Response"] == '{"length": 8}\n{"length": 9}'
    assert report["Output"] == '{"SageMakerOutput":{"length": 8},"id":1}\n{"SageMakerOutput":{"length": 9},"id":22}\n'
    assert len(workspace.sent()) == 1
    shown = rayxform("check", job).stdout
    assert "response\n" in shown
    assert "loading the model" in shown


def test_run_prints_one_json_object_last_and_exits_0(workspace, ray_address):
    workspace.write("a.jsonl", b"1\n2\n")
    ended = rayxform("run", workspace.job_file(), "--json", "--address", ray_address, "--workers", 1)
    result = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0
    assert {name: result[name] for name in ("TransformJobStatus", "FailureReason", "Files", "FailedFiles")} == {
        "TransformJobStatus": "Completed",
        "FailureReason": None,
        "Files": 1,
        "FailedFiles": 0,
    }
    assert (result["Records"], result["Requests"], result["Workers"]) == (2, 1, 1)
    assert result["S3OutputPath"] == str(workspace.folder / "output")
    assert result["RecordsPerSecond"] == pytest.approx(2 / result["Seconds"], rel=0.1)
    assert re.search(r"Completed: 1 of 1 files, 2 records in 1 requests", ended.stderr)
    assert "Traceback" not in ended.stderr


def test_report_writes_one_page_that_needs_nothing_else(workspace, ray_address):
    workspace.write("a.jsonl", b"1\n2\n")
    job = workspace.job_file(TransformJobName="my-job")
    refused = rayxform("report", job)
    assert (refused.returncode, "was never run" in refused.stderr) == (2, True)
    assert rayxform("run", job).returncode == 0
    page = workspace.folder / "report.html"
    written = rayxform("report", job, "--output", page, "--json")
    assert json.loads(written.stdout) == {"Report": str(page)}
    assert "<h1>my-job</h1>" in page.read_text()
    assert not re.search(r"(src|href)=.?https?:|@import|url\(", page.read_text())
    unwritable = rayxform("report", job, "--output", workspace.folder / "nowhere" / "report.html")
    assert unwritable.returncode == 1
    assert "choose another path with --output" in unwritable.stderr


def test_a_failed_job_exits_1_with_the_reason(workspace, ray_address):
    workspace.write("a.jsonl", b"{\n")
    ended = rayxform("run", workspace.job_file(DataProcessing__JoinSource="Input"), "--json")
    assert ended.returncode == 1
    assert (
        "a.jsonl: record 1 (byte 0): the record is not valid JSON" in json.loads(ended.stdout.splitlines()[-1])["FailureReason"]
    )


def archive(folder, build):
    path = folder / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        build(tar)
    return str(path)


def with_escape(tar):
    member = tarfile.TarInfo("../escaped.py")
    tar.addfile(member)


REFUSALS = {
    "no such file": ({"TransformInput__DataSource__S3DataSource__S3Uri": "/nowhere/a.jsonl"}, "no object is there"),
    "an empty prefix": ({"TransformInput__DataSource__S3DataSource__S3Uri": "input/none-"}, "no object is there"),
    "a misspelt member": ({"TransformInput__SplitTyp": "Line"}, "TransformInput.SplitTyp is 'no member'"),
    "a JSONPath that is not supported": ({"DataProcessing__InputFilter": "$..id"}, "recursive descent"),
    "a payload out of range": ({"MaxPayloadInMB": 101}, "an integer from 0 to 100"),
    "too much in flight": ({"MaxConcurrentTransforms": 30, "MaxPayloadInMB": 6}, "a product of at most 100"),
    "no archive": ({"Model": {"ModelDataUrl": "nowhere.tar.gz"}}, "but nothing is there"),
    "a truncated archive": ({"Model": {"ModelDataUrl": "truncated.tar.gz"}}, "truncated.tar.gz"),
    "no inference.py": ({"Model": {"ModelDataUrl": "empty.tar.gz"}}, "inference.py"),
    "a member outside": ({"Model": {"ModelDataUrl": "escape.tar.gz"}}, "../escaped.py"),
    "a syntax error": ({"Model": {"SourceDir": "broken"}}, "line 2"),
    "an output below a file": ({"TransformOutput__S3OutputPath": "job.json/out"}, "is a file; one of the path's folders"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_job_that_cannot_start_exits_2_and_says_why(workspace, what):
    changes, message = REFUSALS[what]
    workspace.write("a.jsonl", b"1\n")
    (workspace.folder / "broken").mkdir()
    (workspace.folder / "broken" / "inference.py").write_text("def model_fn(d):\n    return (\n")
    Path(archive(workspace.folder, lambda tar: tar.addfile(tarfile.TarInfo("weights")))).rename(
        workspace.folder / "empty.tar.gz"
    )
    Path(archive(workspace.folder, with_escape)).rename(workspace.folder / "escape.tar.gz")
    whole = (workspace.folder / "empty.tar.gz").read_bytes()
    (workspace.folder / "truncated.tar.gz").write_bytes(whole[: len(whole) // 2])
    ended = rayxform("run", workspace.job_file(**changes), "--json")
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert json.loads(ended.stdout)["TransformJobStatus"] == "Failed"
    assert not (workspace.folder / "output").exists()
    assert not (workspace.folder.parent / "escaped.py").exists()


def test_an_output_on_a_read_only_disk_is_refused_before_anything_is_started(workspace, tmp_path):
    workspace.write("a.jsonl", b"1\n")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        ended = rayxform("run", workspace.job_file(TransformOutput__S3OutputPath=str(disk / "out")))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert ended.returncode == 2
    assert "read-only file system; choose a path on a device that can be written" in ended.stderr
    assert workspace.sent() == []


def test_all_problems_of_a_job_file_are_named_at_once(workspace):
    changes = {"MaxPayloadInMB": 101, "BatchStrategy": "Multi", "DataProcessing__InputFilter": "$..id", "Modell": {}}
    ended = rayxform("plan", workspace.job_file(**changes))
    assert ended.returncode == 2
    for path in ("MaxPayloadInMB", "BatchStrategy", "DataProcessing.InputFilter", "Modell"):
        assert path in ended.stderr


def test_a_run_that_is_stopped_before_it_begins_says_so():
    """While it waits for its job file, which a store never gives it."""
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.settimeout(60)
        url = f"http://127.0.0.1:{store.getsockname()[1]}"
        environment = os.environ | {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        command = [sys.executable, "-m", "rayxform", "run", "s3://bucket/job.json", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        with store.accept()[0]:
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, '{"TransformJobStatus": "Stopped"}\n'), stderr


def test_sigterm_does_not_cut_short_what_is_said_of_a_run_that_has_ended():
    code = """
import signal
from rayxform import cli
refuse = cli._refuse
cli._refuse = lambda *given: signal.raise_signal(signal.SIGTERM) or refuse(*given)
cli.main(["run", "missing.json", "--json"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, json.loads(ended.stdout)["TransformJobStatus"]) == (1, "Failed"), ended.stderr
    assert "missing.json" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, {}), (signal.SIGTERM, {"Partition": {"By": ["$.date"], "Format": "jsonlines"}})]
)
def test_a_running_job_stops_within_seconds(workspace, ray_address, number, kind):
    source = workspace.folder / "src"
    source.mkdir()
    (source / "inference.py").write_text(
        "import pathlib, time\n"
        "def model_fn(d):\n    return None\n"
        "def transform_fn(m, b, t, a):\n"
        f"    pathlib.Path({str(workspace.requests)!r}, 'began').touch()\n    time.sleep(60)\n"
    )
    workspace.write("a.jsonl", b"1\n2\n")
    command = [
        sys.executable,
        "-m",
        "rayxform",
        "run",
        str(workspace.job_file(Model={"SourceDir": str(source)}, Rayxform=kind)),
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    give_up_at = time.monotonic() + 100
    while not (workspace.requests / "began").exists() and time.monotonic() < give_up_at:
        time.sleep(0.1)
    os.kill(process.pid, number)
    # Three seconds are the promise; the rest is for a machine that is busy with the other tests.
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert json.loads(stdout.splitlines()[-1])["TransformJobStatus"] == "Stopped"
    assert "Stopped: 0 of 1 files" in stderr
    assert workspace.outputs() == {}
