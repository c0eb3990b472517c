"""The pages as the server serves them: who may see them, and the way from a bad record to a job that is complete."""

import base64
import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.server.conftest import ONE_WORKER


def get(url, **headers):
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_pages_ask_for_the_password_where_callers_have_keys(start_server):
    guarded = start_server({"Keys": {"AKID": "secret"}, "PagesPassword": "open sesame"})
    status, _, headers = get(f"{guarded.url}/")
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="rayxform", charset="UTF-8"')
    wrong, right = (base64.b64encode(f"any:{word}".encode()).decode() for word in ("open", "open sesame"))
    assert get(f"{guarded.url}/", Authorization=f"Basic {wrong}")[0] == 401
    assert get(f"{guarded.url}/", Authorization="Basic ???")[0] == 401
    assert get(f"{guarded.url}/jobs/none/log", Authorization=f"Basic {wrong}")[0] == 401
    status, text, headers = get(f"{guarded.url}/", Authorization=f"Basic {right}")
    assert status == 200
    assert "rayxform" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_without_a_password_there_are_no_pages_where_callers_have_keys(start_server):
    guarded = start_server({"Keys": {"AKID": "secret"}})
    status, text, _ = get(f"{guarded.url}/")
    assert status == 403
    assert "PagesPassword" in text


def test_what_is_not_there_is_said_on_a_page(server):
    for path in ("/jobs/none", "/elsewhere", "/jobs/none/log", "/jobs/..%2f..%2fetc"):
        status, text, _ = get(server.url + path)
        assert status == 404
        assert "There is no" in text


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example"])
def test_another_sites_page_cannot_press_a_button(start_server, workspace, origin):
    server = start_server({}, str(workspace.job_file(TransformJobName="untouched")))
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{server.url}/jobs/untouched/resume", b"", headers, method="POST"), timeout=30)
    assert refused.value.code == 403
    assert "Run</button>" in get(f"{server.url}/jobs/untouched")[1]


def test_a_user_runs_a_job_finds_the_bad_record_mends_it_and_resumes(start_server, workspace, chromium):
    """With nothing but a browser, and an editor for the record."""
    good = [json.dumps({"id": number}) for number in range(20)]
    workspace.write("good.jsonl", "\n".join(good).encode())
    workspace.write("bad.jsonl", "\n".join([*good[:7], '{"id": 7, "text": <b>oops</b>', *good[8:]]).encode())
    job = workspace.job_file(TransformJobName="first", DataProcessing__JoinSource="Input", **{"Rayxform__CpusPerWorker": 2})
    server = start_server(ONE_WORKER, str(job))
    page = chromium.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.url)
    page.get_by_role("link", name="first").click()
    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Resume").wait_for(timeout=90_000)  # the page follows the job by itself
    assert "Failed" in page.locator("#status").inner_text()
    assert page.get_by_text("bad.jsonl, record 8, byte 70").count()
    assert '{"id": 7, "text": <b>oops</b>' in page.locator("main").inner_text()
    workspace.write("bad.jsonl", "\n".join(good).encode())
    page.get_by_role("button", name="Resume").click()
    page.locator("#status", has_text="Completed").wait_for(timeout=90_000)
    page.get_by_role("link", name="Log").click()
    assert "--- run 2" in page.locator("body").inner_text()
    assert faults == []
    assert workspace.outputs()["bad.jsonl.out"] == workspace.outputs()["good.jsonl.out"]
    assert workspace.outputs()["good.jsonl.out"].count(b"\n") == 20
