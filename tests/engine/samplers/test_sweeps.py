import pytest

from engine.errors import BlindspotError
from engine.jobs import JobQueue
from engine.samplers.generation import GenerationRequest
from engine.samplers.records import generated_images
from engine.samplers.sweeps import finished_sweeps, is_sweep, load_sweep, submit_sweep

SMALL = {"count": 2, "steps": 4, "candidates": 1}


@pytest.fixture
def queue(tmp_path):
    opened = JobQueue(tmp_path / "jobs", devices=("cpu",))
    yield opened
    opened.close()


def test_a_sweep_is_one_job_at_four_strengths_from_one_seed(atlas, queue):
    asked = GenerationRequest(3, "optimisation", strength=0.4, **SMALL)
    job = submit_sweep(queue, atlas, asked, "strength")
    assert submit_sweep(queue, atlas, asked, "strength").id == job.id
    done = queue.wait(job.id, 120)
    assert done.state == "done" and done.step == done.steps == 16, done.error
    sweep, records = load_sweep(done.result_dir)
    assert sweep.values == [0.0, 0.2, 0.4, 0.8] and is_sweep(done.result_dir)
    assert [record["parameters"]["strength"] for record in records] == sweep.values
    assert {record["parameters"]["seed"] for record in records} == {0}
    assert len({generated_images(done.result_dir / str(i), one)[0] for i, one in enumerate(records)}) > 1
    assert [found.id for found, _ in finished_sweeps(queue, atlas, 3)] == [job.id]
    assert finished_sweeps(queue, atlas, 4) == []


def test_a_ladder_aims_at_shares_of_the_real_images_score(atlas, queue):
    job = submit_sweep(queue, atlas, GenerationRequest(3, "retrieval-soft", count=4), "level")
    done = queue.wait(job.id, 120)
    assert done.state == "done", done.error
    sweep, records = load_sweep(done.result_dir)
    reached = [sum(one["scores"]) / len(one["scores"]) / one["reference_score"] for one in records]
    assert sweep.values == [0.5, 0.75, 1.0] and reached == sorted(reached)
    assert [one["parameters"]["level"] for one in records[:2]] == [0.5, 0.75]
    assert abs(reached[0] - 0.5) < abs(reached[2] - 0.5)


@pytest.mark.parametrize("request_", [GenerationRequest(3, "retrieval"), GenerationRequest(3, strength=0.0)])
def test_without_a_strength_there_is_nothing_to_vary(atlas, queue, request_):
    with pytest.raises(BlindspotError, match=r"nothing to vary|this strength is 0"):
        submit_sweep(queue, atlas, request_, "strength")
