"""A concept that was drawn into the atlas shows its samples before anything is generated."""

import shutil

import pandas as pd
import pytest
from PIL import Image

from engine.atlas.writer import add_to_gallery
from tests.app.test_pages import html, opened


@pytest.fixture(scope="module")
def drawn_atlas(plain_atlas, tmp_path_factory):
    path = shutil.copytree(plain_atlas, tmp_path_factory.mktemp("drawn") / "atlas")
    scores = {"score": [0.5, 0.7], "codes_score": [0.4, 0.0], "reference_score": 1.2, "strength": 0.3}
    rows = pd.DataFrame({"concept": 5, "rank": [0, 1], "method": "energy-guidance", **scores, "steps": 40, "seed": 3,
                         "particles": 4, "states": 16, "cap": 1.5, "until": 0.8,
                         "gradient": "eps", "zeta": float("nan")})  # fmt: skip
    add_to_gallery(path, rows, lambda concept, rank: Image.new("RGB", (16, 16), ("teal", "plum")[rank]))
    return path


def test_its_samples_stand_with_their_scores_and_how_they_were_made(use_atlas, drawn_atlas):
    use_atlas(drawn_atlas)
    shown = html(opened("concept_map", concept="5"))
    assert "Drawn with the atlas <small>energy guidance, seed 3, 40 steps, strength 0.3</small>" in shown
    assert "s = 0.500" in shown and "codes 0.400" in shown and shown.count("data:image/webp;base64,UklGR") >= 2
    assert "--concept 5 --count 2 --seed 3 --strength 0.3 --cap 1.5 --until 0.8 --out DIR</code>" in shown
    assert "Mean intrinsic score s = 0.600, 0.50× the mean of the best real images" in shown


def test_other_concepts_and_running_jobs_show_none(use_atlas, drawn_atlas):
    use_atlas(drawn_atlas)
    assert "Drawn with the atlas" not in html(opened("concept_map", concept="6"))
    assert "Drawn with the atlas" not in html(opened("concept_map", concept="5", job="abc"))
