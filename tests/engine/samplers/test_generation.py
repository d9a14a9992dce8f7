import io

import pytest
import torch
from PIL import Image

from engine.errors import BlindspotError
from engine.jobs import Cancelled, JobQueue
from engine.samplers.generation import GenerationRequest, generate_images, warm_up
from engine.samplers.records import load_generation, submit_generation
from engine.samplers.registry import create

CONCEPT = 2


def test_a_drawing_has_images_scores_and_the_best_real_images(atlas):
    drawing = generate_images(atlas, GenerationRequest(CONCEPT, count=2, steps=4), device="cpu")
    assert drawing.samples.images.shape == (2, 3, 32, 32)
    assert drawing.samples.trace.shape == (4, 2) and len(drawing.codes_scores) == 2
    scores = [reference.score for reference in drawing.references]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert {item.image for item in drawing.references} == set(atlas.exemplars("real", CONCEPT, 4)["image"])
    assert drawing.reference_score == pytest.approx(sum(scores) / 4)
    assert drawing.request.concept == CONCEPT and drawing.request.seed == 0


def test_guidance_beats_the_unguided_prior(atlas):
    settings = {"count": 4, "steps": 12, "strength": 1.0, "candidates": 2}
    led = generate_images(atlas, GenerationRequest(CONCEPT, **settings), device="cpu").samples.scores
    free = generate_images(atlas, GenerationRequest(CONCEPT, "prior", **settings), device="cpu").samples.scores
    assert (led > free).all()


def test_pushing_ends_where_the_best_real_image_is_passed(atlas, monkeypatch):
    strong = generate_images(
        atlas, GenerationRequest(CONCEPT, count=1, steps=6, strength=3.0, candidates=1), device="cpu"
    )
    monkeypatch.setattr("engine.samplers.generation.OVERSHOOT", 1e9)
    stronger = generate_images(
        atlas, GenerationRequest(CONCEPT, count=1, steps=6, strength=3.0, candidates=1), device="cpu"
    )
    best = strong.references[0].score
    assert best > 0 and stronger.samples.trace.max() > 1.1 * best
    assert strong.samples.trace.max() < stronger.samples.trace.max()


def test_no_sample_is_pushed_beyond_a_score_that_is_to_be_reached(atlas, monkeypatch):
    caps = []
    monkeypatch.setattr(
        "engine.samplers.generation.create",
        lambda name, models, settings: caps.append(settings.score_cap) or create(name, models, settings),
    )
    drawing = generate_images(
        atlas, GenerationRequest(CONCEPT, count=4, steps=8, candidates=2, match=True), device="cpu"
    )
    assert drawing.calibration.mean == pytest.approx(drawing.reference_score, rel=0.1)
    assert set(caps) == {1.02 * drawing.reference_score}


def test_a_target_below_zero_is_the_search_s_own_matter(atlas):
    with pytest.raises(BlindspotError, match="lies below what the samples have without a push"):
        generate_images(
            atlas, GenerationRequest(CONCEPT, weights=(-1.0,), count=4, steps=4, candidates=2, match=True), device="cpu"
        )


def test_the_same_order_gives_the_same_images(atlas):
    first, second = (
        generate_images(atlas, GenerationRequest(CONCEPT, count=1, steps=3, seed=5), device="cpu") for _ in range(2)
    )
    assert torch.equal(first.samples.images, second.samples.images)


def test_a_listener_can_cancel(atlas):
    with pytest.raises(Cancelled):
        generate_images(
            atlas, GenerationRequest(CONCEPT, count=1, steps=5), device="cpu", on_step=lambda event: event.step < 2
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"concept": 999}, "no concept 999: choose from 0 to 23"),
        ({"method": "magic"}, "no sampling method 'magic'"),
        ({"count": 0}, "0 images were asked for"),
        ({"seed": -1}, "The seed -1 is negative"),
        ({"steps": 0}, "0 sampling steps"),
    ],
)
def test_a_senseless_order_is_one_sentence(atlas, settings, message):
    with pytest.raises(BlindspotError, match=message):
        generate_images(atlas, GenerationRequest(**({"concept": CONCEPT} | settings)), device="cpu")


def test_a_job_draws_with_previews_and_leaves_its_files(atlas, tmp_path):
    warm_up(atlas, "cpu")
    queue = JobQueue(tmp_path / "results")
    job = submit_generation(queue, atlas, GenerationRequest(CONCEPT, count=2, steps=5, candidates=2))
    joined = submit_generation(queue, atlas, GenerationRequest(CONCEPT, count=2, steps=5, candidates=2, seed=0))
    other = submit_generation(queue, atlas, GenerationRequest(CONCEPT, count=2, steps=5, candidates=2, seed=1))
    done = queue.wait(job.id, 30)
    assert joined.id == job.id != other.id
    assert (done.state, done.step, done.steps) == ("done", 5, 5)
    assert Image.open(io.BytesIO(done.preview)).size == (64, 32)
    record = load_generation(done.result_dir)
    assert record["parameters"]["count"] == 2 and len(record["images"]) == 2
    assert Image.open(done.result_dir / record["images"][0]).size == (32, 32)
    queue.close(30)


def test_a_job_that_fails_says_why(atlas, tmp_path):
    queue = JobQueue(tmp_path / "results")
    failed = queue.wait(submit_generation(queue, atlas, GenerationRequest(999, count=1, steps=2)).id, 30)
    assert failed.state == "failed" and failed.error.startswith("There is no concept 999")
    queue.close(30)
