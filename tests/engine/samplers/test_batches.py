"""Many images in a folder: drawn in batches, written as they come, resumed, and the same as in one go."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.jobs import Cancelled
from engine.samplers import batches
from engine.samplers.base import sample_generators
from engine.samplers.batches import PARTS, draw_into, merged_tilts
from engine.samplers.generation import MAX_AT_ONCE, GenerationRequest, generate_images
from engine.samplers.records import load_generation, save_generation, to_pil
from engine.samplers.smc import EnergySMC, FilterResult
from tests.engine.priors.tiny import GaussianPrior

REQUEST = GenerationRequest(2, "energydps", count=5, steps=2)


@pytest.fixture(autouse=True)
def batches_of_two(monkeypatch):
    monkeypatch.setattr(batches, "CPU_BATCH", 2)


def files(folder):
    return sorted(file.name for file in folder.iterdir())


def pictures(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.png"))}


def cancel_in_batch(number):
    """A listener that gives up in the middle of a batch."""
    begun = 0

    def listen(event):
        nonlocal begun
        begun += event.step == 1
        return begun < number

    return listen


@pytest.mark.parametrize("method", ["energy-guidance", "energydps", "energydps-smc", "maco", "retrieval-soft", "prior"])
def test_batches_give_the_images_and_scores_of_one_go(atlas, tmp_path, method):
    request = GenerationRequest(2, method, count=5, steps=3, particles=2, candidates=2)
    whole = generate_images(atlas, request, "cpu")
    save_generation(whole, tmp_path / "whole")
    record = draw_into(tmp_path / "parts", atlas, request, "cpu")
    expected = load_generation(tmp_path / "whole")
    assert (
        pictures(tmp_path / "parts") == pictures(tmp_path / "whole") and files(tmp_path / "parts")[-1] == "drawing.json"
    )
    for key in ("images", "scores", "codes_scores", "trace", "parameters", "references", "device", "dtype", "prior"):
        assert record[key] == expected[key], key
    if method == "energydps-smc":
        assert record["tilt"] == pytest.approx(expected["tilt"], rel=1e-4)


def test_a_cancelled_drawing_keeps_whole_batches_and_goes_on_with_the_rest(atlas, tmp_path, monkeypatch):
    whole = draw_into(tmp_path / "whole", atlas, REQUEST, "cpu")
    with pytest.raises(Cancelled):
        draw_into(tmp_path / "cut", atlas, REQUEST, "cpu", cancel_in_batch(2))
    assert files(tmp_path / "cut") == ["00.png", "01.png", PARTS]
    with pytest.raises(BlindspotError, match="holds no drawing"):
        load_generation(tmp_path / "cut")
    before = (tmp_path / "cut" / "00.png").stat().st_mtime_ns
    steps = []
    record = draw_into(tmp_path / "cut", atlas, REQUEST, "cpu", lambda event: steps.append(event.step))
    assert steps == [1, 2, 1, 2] and (tmp_path / "cut" / "00.png").stat().st_mtime_ns == before
    assert pictures(tmp_path / "cut") == pictures(tmp_path / "whole") and record["scores"] == whole["scores"]
    assert not (tmp_path / "cut" / PARTS).exists()


def test_a_batch_whose_image_is_gone_is_drawn_again(atlas, tmp_path):
    with pytest.raises(Cancelled):
        draw_into(tmp_path, atlas, REQUEST, "cpu", cancel_in_batch(3))
    (tmp_path / "01.png").unlink()
    steps = []
    draw_into(tmp_path, atlas, REQUEST, "cpu", lambda event: steps.append(event.step))
    assert steps == [1, 2] * 2 and len(pictures(tmp_path)) == 5


def test_another_request_begins_anew_and_nothing_of_the_earlier_one_stays(atlas, tmp_path):
    draw_into(tmp_path, atlas, REQUEST, "cpu")
    (tmp_path / "mine.png").write_bytes(b"")
    other = GenerationRequest(2, "energydps", count=3, steps=2, seed=1)
    with pytest.raises(Cancelled):
        draw_into(tmp_path, atlas, other, "cpu", cancel_in_batch(2))
    assert "drawing.json" not in files(tmp_path)
    record = draw_into(tmp_path, atlas, other, "cpu")
    assert files(tmp_path) == ["00.png", "01.png", "02.png", "drawing.json", "mine.png"] and len(record["scores"]) == 3


def test_a_search_is_made_once_and_its_images_are_not_drawn_again(atlas, tmp_path):
    request = GenerationRequest(2, "energydps", count=5, steps=4, match=True)
    expected = generate_images(atlas, request, "cpu")
    record = draw_into(tmp_path / "whole", atlas, request, "cpu")
    assert record["matched"]["strength"] == expected.calibration.strength
    assert record["scores"] == expected.samples.scores.tolist()
    heard = []

    def stop_after_the_search(event):
        heard.append(event.step)
        return True

    draw_into(tmp_path / "again", atlas, request, "cpu", stop_after_the_search)
    assert len(heard) == 4 * record["matched"]["evaluations"]


def test_only_a_batch_is_in_memory_at_once(atlas, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(batches, "save_images", lambda images, *rest: sizes.append(len(images)) or save(images, *rest))
    save = sys.modules["engine.samplers.records"].save_images
    draw_into(tmp_path, atlas, REQUEST, "cpu")
    assert sizes == [2, 2, 1]
    with pytest.raises(BlindspotError, match="65 images are too many to hold in memory: ask for 64 at most"):
        generate_images(atlas, GenerationRequest(2, count=65), "cpu")
    with pytest.raises(BlindspotError, match="10001 images were asked for: ask for 1 to 10000"):
        GenerationRequest(2, count=10_001)


def test_a_hundred_images_have_names_of_their_own_and_a_record_that_stays_small(atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "CPU_BATCH", 16)
    record = draw_into(tmp_path, atlas, GenerationRequest(2, "retrieval-soft", count=104), "cpu")
    assert record["images"][-1] == "103.png" and len(set(record["images"])) == 104 == len(record["scores"])
    assert [len(row) for row in record["trace"]] == [MAX_AT_ONCE]
    assert len(json.dumps(record)) < 30_000


def test_retrieval_ends_with_the_last_exemplar(atlas, tmp_path):
    there = len(atlas.exemplars("real", 2, 1000))
    record = draw_into(tmp_path, atlas, GenerationRequest(2, "retrieval", count=there + 5), "cpu")
    assert len(record["images"]) == there == len(pictures(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_sentence(atlas, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlindspotError, match=r"cannot be written to .*file"):
        draw_into(tmp_path / "file", atlas, REQUEST, "cpu")


def test_image_i_has_its_own_noise_wherever_a_batch_begins():
    whole, part = sample_generators(7, 5), sample_generators(7, 2, first=3)
    for one, other in zip(whole[3:], part, strict=True):
        assert torch.equal(torch.randn(4, generator=one), torch.randn(4, generator=other))


def test_tilts_of_batches_are_the_tilt_of_all_filters():
    sampler = EnergySMC(GaussianPrior(), 4, 2.0, particles=3)
    found = sampler.filter(lambda images: images.mean(dim=(1, 2, 3)), 7)

    def part(start, end):
        return FilterResult(*(each[start:end] for each in found[:4]), found.trace[:, start:end])

    spans = [(0, 3), (3, 4), (4, 7)]
    each = [sampler.tilt(part(*span))._asdict() for span in spans]
    merged, whole = merged_tilts(each, [end - start for start, end in spans]), sampler.tilt(found)._asdict()
    assert merged == pytest.approx(whole, rel=1e-5)
    alone = merged_tilts(each[1:2], [1])
    assert math.isnan(alone.pop("standard_error")) and alone == pytest.approx({k: each[1][k] for k in alone}, rel=1e-9)


def test_pictures_are_what_was_drawn(atlas, tmp_path):
    draw_into(tmp_path, Atlas.open(atlas.path), REQUEST, "cpu")
    drawn = generate_images(atlas, REQUEST, "cpu").samples.images
    from PIL import Image

    for file, picture in zip(sorted(tmp_path.glob("*.png")), to_pil(drawn), strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), np.asarray(picture))
