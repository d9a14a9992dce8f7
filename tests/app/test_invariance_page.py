"""The Invariance page: a query, a search as a job, its members with their responses, and what varies among them."""

import time

import pytest
import torch

from engine.atlas import Atlas
from engine.invariance import records, sampling
from engine.invariance.request import InvariantRequest
from engine.invariance.sampling import InvariantResult, Member
from engine.jobs import JobQueue
from pages.widgets import jobs
from tests.app.test_pages import html, opened, url

PAGE = "invariance"


@pytest.fixture
def queue(tmp_path, monkeypatch, use_atlas, drawable_atlas):
    """A queue of its own whose searches end at once, on an atlas with models."""
    use_atlas(drawable_atlas)
    made = JobQueue(tmp_path / "jobs", devices=("cpu",))
    monkeypatch.setattr(jobs, "queue", lambda: made)

    def found(atlas: Atlas, request: InvariantRequest, device=None, on_progress=None, download=False):
        members = tuple(Member((1.5,), 0.01 * i, i < 3, (0.5, 0.2, 0.04, 0.02, 0.01)) for i in range(request.count))
        spread = {"concept": 3, "name": "x", "ratio": 0.5, "mean": 0.1, "present": 0.5}
        varies = {"varies": [spread], "needed": [], "excluded": [spread | {"concept": 4}]}
        images = torch.rand(request.count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return InvariantResult(request, images, ("concept 3",), (1.5,), members, 120, 0.7, varies, 2.0)

    monkeypatch.setattr(records, "sample_invariants", found)
    yield made
    made.close()


def finished(queue, atlas, **settings):
    job = records.submit_invariants(queue, Atlas.open(atlas), InvariantRequest("concept:3", 2, **settings), "me")
    while not (job := queue.get(job.id)).ended:
        time.sleep(0.02)
    return job


def test_members_stand_beside_the_query_with_their_responses(queue, drawable_atlas):
    job = finished(queue, drawable_atlas, count=4)
    shown = html(opened(PAGE, concept="3", image="2", job=job.id))
    assert "3 of 4 images answer as the query" in shown and shown.count("<b>f = 1.5</b>") == 4
    assert shown.count("not within the tolerance") == 1 and shown.count("<polyline") == 4
    assert "Blind to: vary most" in shown and "Excludes: in none" in shown and "Needs: in all" not in shown
    assert "--target concept:3 --image 2 --out DIR</code>" in shown


def test_members_that_differ_most_are_marked(queue, drawable_atlas, monkeypatch):
    whole = records.sample_invariants
    monkeypatch.setattr(
        records, "sample_invariants", lambda *given, **named: whole(*given, **named)._replace(chosen=(2, 0))
    )
    job = finished(queue, drawable_atlas, count=4, choose=2, choice="k-dpp")
    shown = html(opened(PAGE, concept="3", image="2", job=job.id))
    assert shown.count('class="ba-marked"') == 2 and "Framed: the 2 members that differ most" in shown
    assert "--choose 2 --choice k-dpp" in shown


def test_a_page_without_a_query_asks_of_the_most_suppressed_concept_and_lists_what_was_drawn(queue, drawable_atlas):
    finished(queue, drawable_atlas, count=1)
    app = opened(PAGE)
    shown = html(app)
    assert "Query <small>image" in shown and "concept:3, image 2, seed 0" in shown and not app.exception
    assert [button.label for button in app.button] == ["Draw members"]


def test_the_form_starts_a_job_and_refuses_folders_of_this_machine(queue):
    app = opened(PAGE, concept="3", image="2")
    app.radio[0].set_value("other")
    app.text_input[0].set_value("logits:/etc")
    app.button[0].click().run()
    assert "Classifiers are for the command" in app.error[0].value
    app.radio[0].set_value("concept")
    app.button[0].click().run()
    assert queue.get(url(app)["job"]) is not None and url(app)["image"] == "2"


def test_an_unknown_job_is_said_in_words(queue):
    app = opened(PAGE, job="abc")
    assert any("unknown here" in caption.value for caption in app.caption) and not app.exception


def test_cutoffs_are_what_the_page_says():
    assert sampling.CUTOFFS == (0.1, 0.3, 0.5, 0.7, 0.9)
