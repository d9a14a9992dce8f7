"""Members behind an atlas: within the tolerance, the same alone and among others; one sentence where there are none."""

import json
import shlex
import time

import pytest
import torch
from typer.testing import CliRunner

from engine.errors import BlindspotError
from engine.invariance import search
from engine.invariance.generator import DeterministicGenerator
from engine.invariance.parsing import parse_target
from engine.invariance.records import (
    RECORD,
    finished_invariants,
    load_invariants,
    members_command,
    save_invariants,
    submit_invariants,
)
from engine.invariance.request import InvariantRequest
from engine.invariance.sampling import sample_invariants
from engine.jobs import Cancelled, JobQueue
from engine.vision.preprocess import load_image, to_tensor
from precompute.cli import app

TARGET = "concept:4"


@pytest.fixture(scope="module")
def wanted(models):
    """A response that the prior can give."""
    generator = DeterministicGenerator(models.prior, 4)
    with torch.no_grad():
        images = generator(generator.noise(0, 8))
        responses = parse_target(TARGET).build(models)(images)[:, 0]
    return float(responses.median())


@pytest.fixture(autouse=True)
def _short_starts(monkeypatch):
    monkeypatch.setattr(search, "START_STEPS", 6)
    monkeypatch.setattr(search, "START_CANDIDATES", 4)
    monkeypatch.setattr(search, "TRIES", 1)


def request(wanted, **settings):
    return InvariantRequest(
        TARGET, values=(wanted,), **{"count": 2, "steps": 4, "walk_steps": 1, "tolerance": 0.05, **settings}
    )


def test_members_answer_as_asked_in_the_images_that_are_kept(models, wanted, tmp_path):
    steps = []

    def progress(done, total, images):
        steps.append((done, total))

    found = sample_invariants(models.atlas, request(wanted), "cpu", progress)
    assert [member.converged for member in found.members] == [True, True]
    assert found.evaluations > 0 and found.acceptance is not None and found.images.shape[0] == 2
    assert [done for done, _ in steps] == sorted(done for done, _ in steps) and steps[-1][0] <= steps[-1][1]
    files = save_invariants(found, tmp_path / "members")
    record = load_invariants(tmp_path / "members")
    assert [file.name for file in files] == record["images"] and record["members"][0]["converged"]
    again = to_tensor([load_image(files[0])], models.encoder.spec)  # what the file itself holds
    said = parse_target(TARGET).build(models)(again)[0, 0]
    assert abs(float(said) - wanted) <= 0.051 * abs(wanted)


def test_a_member_is_the_same_alone_and_among_others(models, wanted):
    alone = sample_invariants(models.atlas, request(wanted, count=1), "cpu")
    both = sample_invariants(models.atlas, request(wanted), "cpu")
    assert torch.equal(alone.images[0], both.images[0]) and not torch.equal(both.images[0], both.images[1])


@pytest.mark.parametrize("choice", ["farthest-first", "k-dpp"])
def test_of_the_members_those_that_differ_most_are_named(models, wanted, choice):
    asked = request(wanted, count=3, choose=2, choice=choice, low_pass="none", method="projection")
    found = sample_invariants(models.atlas, asked, "cpu")
    assert len(set(found.chosen)) == 2 and all(found.members[row].converged for row in found.chosen)


def test_words_for_filters_that_name_none_are_one_sentence(models, wanted):
    with pytest.raises(BlindspotError, match="'ideal' is no low-pass filter"):
        sample_invariants(models.atlas, request(wanted, low_pass="ideal"), "cpu")
    with pytest.raises(BlindspotError, match="a loss of method descent"):
        request(wanted, low_pass="multi")


def test_many_responses_are_matched_by_projection(models):
    """The codes of an image that the prior made: more responses than a walk can take."""
    generator = DeterministicGenerator(models.prior, 4)
    with torch.no_grad():
        codes = parse_target("codes:all").build(models)(generator(generator.noise(3, 1)))[0]
    settings = {"count": 1, "steps": 4, "tolerance": 0.9, "iterations": 2}
    result = sample_invariants(models.atlas, InvariantRequest("codes:all", values=tuple(codes.tolist()), **settings))
    assert len(result.names) == len(codes) > 16 and result.acceptance is None


def test_what_cannot_be_reached_is_one_sentence(models, monkeypatch):
    with pytest.raises(BlindspotError, match=r"No image was found whose response concept 4 is 1e\+06"):
        sample_invariants(models.atlas, request(1e6, count=1, iterations=2), "cpu")
    with pytest.raises(BlindspotError, match="needs 1 finite number"):
        sample_invariants(models.atlas, request(float("nan")), "cpu")
    with pytest.raises(BlindspotError, match="There is no image 999999"):
        sample_invariants(models.atlas, InvariantRequest(TARGET, 999_999), "cpu")


def test_a_cancelled_search_ends_at_once(models, wanted):
    seen = []

    def progress(done, total, images):
        seen.append(done)
        return len(seen) < 3

    with pytest.raises(Cancelled):
        sample_invariants(models.atlas, request(wanted, count=1), "cpu", progress)
    assert len(seen) <= 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "magic"}, "no method"), ({"count": 0}, "ask for 1 to"), ({"steps": 0}, "choose 1 to"),
        ({"signal": 1.0}, "makes no sense"), ({"seed": -1}, "negative"), ({"tolerance": 0.0}, "no share"),
        ({"walk_steps": -1}, "steps of the walk"), ({"image": 3}, "not both"),
    ],
)  # fmt: skip
def test_odd_requests_are_one_sentence(settings, said):
    with pytest.raises(BlindspotError, match=said):
        request(1.0, **settings)


def test_the_command_writes_members_and_says_what_they_are(models, wanted, tmp_path):
    out = tmp_path / "out"
    command = [
        "invariants",
        str(models.atlas.path),
        "--target",
        TARGET,
        "--out",
        str(out),
        "--count",
        "1",
        "--steps",
        "4",
    ]
    result = CliRunner().invoke(app, [*command, "--value", str(wanted), "--walk", "0", "--tolerance", "0.05", "--json"])
    assert json.loads(result.stdout)["members"][0]["converged"] and (out / "00.png").exists()


def test_a_job_keeps_members_and_a_record_of_another_kind_is_none(models, wanted, tmp_path):
    queue = JobQueue(tmp_path / "jobs", devices=("cpu",))
    job = submit_invariants(queue, models.atlas, request(wanted, count=1), "me")
    while not (job := queue.get(job.id)).ended:
        time.sleep(0.05)
    assert job.state == "done" and [one.id for one, _ in finished_invariants(queue, models.atlas)] == [job.id]
    record = load_invariants(job.result_dir)
    words = shlex.split(members_command(record["request"], "A", "B"))
    for option in ("--target", "--value", "--count", "--walk", "--steps"):
        assert option in words
    file = job.result_dir / RECORD
    for odd in ("{}", "[]", file.read_text().replace('"00.png"', '"../00.png"'), file.read_text()[:-40]):
        file.write_text(odd)
        with pytest.raises(BlindspotError, match="holds no members"):
            load_invariants(job.result_dir)
