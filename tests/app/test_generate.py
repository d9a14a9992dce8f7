"""The life of a job as the page shows it, on the real queue with work that waits for the test."""

import io
import threading

import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from engine.errors import BlindspotError
from engine.jobs import Job
from pages.widgets import jobs


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shown(use_atlas, plain_atlas, tmp_path, monkeypatch):
    """Show one job's progress as a page of its own."""
    use_atlas(plain_atlas)
    monkeypatch.setenv("BLINDSPOT_RESULTS", str(tmp_path))
    jobs.queue.clear()

    def script(key: str) -> None:
        from pages.widgets import jobs

        jobs.progress(key)

    yield lambda key: AppTest.from_function(script, args=(key,), default_timeout=120)
    jobs.queue().close()
    jobs.queue.clear()


def test_a_running_job_shows_step_preview_and_a_cancel_that_works(shown):
    reported, go_on = threading.Event(), threading.Event()

    def work(task):
        task.report(3, 10, jpeg())
        reported.set()
        go_on.wait(20)
        task.report(4, 10)

    job = jobs.queue().submit({"test": 1}, work)
    assert reported.wait(20)
    app = shown(job.id).run()
    assert not app.exception
    assert app.get("progress")[0].proto.value == 30 and "Step 3 of 10" in app.get("progress")[0].proto.text
    assert "data:image/jpeg;base64," in app.get("html")[0].proto.body
    app.button(key="cancel_job").click().run()
    go_on.set()
    jobs.queue().wait(job.id, 20)
    assert shown(job.id).run().info[0].value == "Cancelled."


def test_a_failed_job_says_why_in_one_sentence(shown):
    def work(task):
        raise BlindspotError("The prior is broken: train it again.")

    job = jobs.queue().submit({"test": 2}, work)
    jobs.queue().wait(job.id, 20)
    assert shown(job.id).run().error[0].value == "The prior is broken: train it again."


@pytest.mark.parametrize(
    ("job", "text"),
    [
        (Job("a", "queued", position=2), "Waiting, 2 before this one"),
        (Job("a", "queued"), "Starts next"),
        (Job("a", "running"), "Loading the models (once per start of the app)"),
        (Job("a", "running", step=4, steps=40, seconds_left=12.3), "Step 4 of 40, about 12 s left"),
    ],
)
def test_progress_says_where_the_job_is(job: Job, text: str):
    assert jobs.progress_text(job) == text


def test_a_rerun_does_not_end_with_a_full_collection():
    """It holds the interpreter for half a second once torch is loaded, twice a second while a job is followed."""
    assert st.config.get_option("runner.postScriptGC") is False
