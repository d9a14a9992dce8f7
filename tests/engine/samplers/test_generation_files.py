import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine.errors import BlindspotError
from engine.samplers.base import Samples
from engine.samplers.generation import GenerationRequest, GenerationResult, Reference
from engine.samplers.records import load_generation, preview_jpeg, save_generation


@pytest.fixture
def drawing():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    samples = Samples(images, torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 0.5], [1.0, 2.0]]))
    return GenerationResult(samples, (0.5, 0.0), (Reference(3, 4.0), Reference(1, 2.0)), GenerationRequest(7), 1.23456)


def test_a_drawing_survives_the_disk(drawing, tmp_path):
    files = save_generation(drawing, tmp_path / "new")
    record = load_generation(tmp_path / "new")
    assert (record["parameters"]["concept"], record["parameters"]["states"], record["parameters"]["cap"]) == (
        7,
        32,
        None,
    )
    assert record["scores"] == [1.0, 2.0] and record["codes_scores"] == [0.5, 0.0]
    assert record["references"] == [{"image": 3, "score": 4.0}, {"image": 1, "score": 2.0}]
    assert record["reference_score"] == 3.0 and record["trace"] == [[0.5, 0.5], [1.0, 2.0]]
    assert record["images"] == [file.name for file in files] == ["00.png", "01.png"]
    pixels = np.asarray(Image.open(files[1]))
    np.testing.assert_allclose(pixels / 255, drawing.samples.images[1].permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["00.png", "01.png", "drawing.json"]


def test_a_drawing_without_references_has_no_reference_score(drawing, tmp_path):
    lonely = GenerationResult(drawing.samples, drawing.codes_scores, (), GenerationRequest(7), 0.0)
    save_generation(lonely, tmp_path)
    assert json.loads((tmp_path / "drawing.json").read_text())["reference_score"] is None


def test_a_folder_without_a_drawing_is_one_sentence(tmp_path):
    with pytest.raises(BlindspotError, match="holds no drawing: generate it again"):
        load_generation(tmp_path)


def test_a_folder_that_cannot_be_written_is_one_sentence(drawing, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BlindspotError, match=r"cannot be written to .*file"):
        save_generation(drawing, tmp_path / "file")


def test_a_preview_shows_all_samples_in_a_row(drawing):
    preview = Image.open(io.BytesIO(preview_jpeg(drawing.samples.images)))
    assert preview.format == "JPEG" and preview.size == (16, 8)
