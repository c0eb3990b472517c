"""Pages in a real browser: light and dark, wide and narrow, by keyboard, with JavaScript and without."""

import http.server
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest

import rayxform
from rayxform.pages import Action, JobLine, read_view, render_error, render_job, render_jobs

PLACES = ("report", "live", "jobs", "no-jobs", "error")


@contextmanager
def serving(pages):
    """A server of pages: path → HTML, or a function that gives it. Its URL, and what was posted."""
    posted = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            page = pages.get(self.path.strip("/"))
            data = (page() if callable(page) else page or "").encode()
            self.send_response(200 if page else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self):
            posted.append(self.path)
            self.send_response(303)
            self.send_header("Location", "/live")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", posted
        server.shutdown()


@pytest.fixture(scope="module")
def site(shown, tmp_path_factory):
    """Every kind of page, served; the live one says each time that another record is done."""
    _, job = shown
    view = read_view(job)
    report = rayxform.report(job, tmp_path_factory.mktemp("report") / "report.html").read_text()
    looks = []

    def live():
        looks.append(1)
        status = replace(view.status, status="InProgress", records=1000 + len(looks), message="run by process 1")
        return render_job(replace(view, status=status), live=True, actions=[Action("Stop", "/jobs/shown/stop")], nonce="n0nce")

    jobs = [JobLine(f"job-{number}", status, 1.7e9 + number, 60.0 * number, 12, number, 10**number)
            for number, status in enumerate(("Completed", "Failed", "Stopped", "Stopping", "InProgress"))]  # fmt: skip
    pages = {
        "report": report,
        "live": live,
        "jobs": render_jobs(jobs, nonce="n0nce"),
        "no-jobs": render_jobs([], nonce="n0nce"),
        "error": render_error(404, "there is no job of this name", nonce="n0nce"),
    }
    with serving(pages) as (url, posted):
        yield url, posted


@contextmanager
def page_at(chromium, url, **options):
    """A page, which may have said nothing on the console at the end."""
    context = chromium.new_context(**options)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    own = ("data:", url[: url.index("/", len("http://"))] if url.count("/") > 2 else url)
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(own) else None)
    page.goto(url)
    yield page
    context.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing(chromium, site, place, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with page_at(chromium, f"{site[0]}/{place}", color_scheme=scheme, bypass_csp=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("place", PLACES)
def test_a_phone_scrolls_in_one_direction_only(chromium, site, place):
    with page_at(chromium, f"{site[0]}/{place}", viewport={"width": 360, "height": 740}) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_images_are_shown_and_nothing_of_users_runs(chromium, site):
    with page_at(chromium, f"{site[0]}/report") as page:
        widths = page.evaluate("[...document.images].map((one) => one.naturalWidth)")
        assert len(widths) >= 10
        assert set(widths) == {24}
        assert page.locator("h1").inner_text() == "shown"
        assert page.locator("#main script").count() == 0


@pytest.mark.parametrize("place", ["report", "live", "jobs"])
def test_the_keyboard_reaches_every_control_and_shows_where_it_is(chromium, site, place):
    controls = "a[href], button, input, summary, [tabindex='0']"
    with page_at(chromium, f"{site[0]}/{place}") as page:
        visible = f'[...document.querySelectorAll("{controls}")].filter((one) => one.checkVisibility())'
        wanted = page.evaluate(f"{visible}.length")
        reached = set()
        for _ in range(wanted):
            page.keyboard.press("Tab")
            index, outline = page.evaluate(
                f"[{visible}.indexOf(document.activeElement), getComputedStyle(document.activeElement).outlineStyle]"
            )
            assert outline != "none"
            reached.add(index)
        assert reached == set(range(wanted))


@pytest.mark.parametrize("place", PLACES)
def test_it_works_without_javascript(chromium, site, place):
    with page_at(chromium, f"{site[0]}/{place}", java_script_enabled=False) as page:
        assert page.locator("h1").is_visible()
        assert page.locator(".js-only >> visible=true").count() == 0
        if place in ("report", "live"):
            summary = page.locator("#files-Done > summary")
            was_open = page.locator("#files-Done tbody").is_visible()
            summary.click()
            assert page.locator("#files-Done tbody").is_visible() != was_open
        if place == "live":
            first = page.locator(".figures").inner_text()
            page.wait_for_event("framenavigated", timeout=15_000)
            page.wait_for_load_state()
            assert page.locator(".figures").inner_text() != first


def test_a_live_page_keeps_what_the_reader_opened_and_where_they_are(chromium, site):
    url, posted = site
    with page_at(chromium, f"{url}/live", viewport={"width": 800, "height": 500}) as page:
        page.locator("#files-Done > summary").click()
        page.locator("#trace-InvocationError-1 > summary").click()
        is_open = page.evaluate("[...document.querySelectorAll('details[id]')].map((one) => [one.id, one.open])")
        top = page.evaluate("window.scrollY")
        page.locator("h1").evaluate("(one) => { one.dataset.old = 1; }")
        page.locator("h1:not([data-old])").wait_for()
        assert page.evaluate("[...document.querySelectorAll('details[id]')].map((one) => [one.id, one.open])") == is_open
        assert page.evaluate("document.activeElement.closest('details').id") == "trace-InvocationError-1"
        assert page.evaluate("window.scrollY") == top
        page.get_by_role("button", name="Stop").click()
        page.wait_for_url("**/live")
        assert posted[-1] == "/jobs/shown/stop"


def test_a_live_page_says_that_its_server_is_gone_and_stays(chromium, shown):
    _, job = shown
    pages = {"": render_job(read_view(job), live=True, nonce="n")}
    with serving(pages) as (url, _):
        context = chromium.new_context(reduced_motion="reduce")
        page = context.new_page()
        page.goto(url)
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
        del pages[""]
        page.locator("#news", has_text="does not answer").wait_for()
        assert page.locator("h1").inner_text() == "shown"
        context.close()


def test_a_live_page_ends_with_its_job_and_says_so(chromium, shown):
    _, job = shown
    view = read_view(job)
    running = replace(view, status=replace(view.status, status="InProgress"))
    pages = {"": render_job(running, live=True, nonce="n"), "x": ""}
    with serving(pages) as (url, _), page_at(chromium, url) as page:
        assert page.title().startswith("InProgress")
        pages[""] = render_job(view, live=False, nonce="m")
        page.locator("#news", has_text="The job is").wait_for(state="attached")
        assert "Failed" in page.locator("#news").text_content()
        assert page.title().startswith("Failed")
        assert page.evaluate("'live' in document.getElementById('main').dataset") is False


def test_the_chart_tells_the_value_under_the_pointer_and_the_filter_hides_rows(chromium, shown):
    _, job = shown
    view = read_view(job)
    view = replace(view, status=replace(view.status, files=11))
    with serving({"": render_job(view, live=False, nonce="n")}) as (url, _), page_at(chromium, url) as page:
        plot = page.locator("#chart-queue svg")
        plot.hover()
        assert " after " in page.locator("#chart-queue output").inner_text()
        page.locator("#files-Done").evaluate("(one) => { one.open = true; }")
        page.locator("#filter").fill("C.JSON")
        assert page.locator("#files-Done tbody tr >> visible=true").count() == 1
