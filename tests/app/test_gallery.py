"""A concept that was drawn into the atlas shows its samples before anything is generated."""

import shutil
from html import unescape

import pandas as pd
import pytest
from PIL import Image

from engine.atlas.writer import add_fooling, add_to_gallery
from tests.app.test_pages import html, opened
from tests.judges import add_judge


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
    assert (
        "--concept 5 --count 2 --seed 3 --steps 40 --strength 0.3 --states 16 --cap 1.5 --until 0.8 --out DIR</code>"
        in shown
    )
    assert "Mean intrinsic score s = 0.600, 0.50× the mean of the best real images" in shown


def test_generate_opens_with_an_image_of_each_concept_that_was_drawn(use_atlas, judged_atlas):
    use_atlas(judged_atlas)
    shown = html(opened("generate"))
    assert shown.count('class="ba-pixel"') == 3 and "0.72 × real, recognised 1 of 3" in shown


def test_other_concepts_show_none_and_a_job_leaves_them_where_they_are(use_atlas, drawn_atlas):
    use_atlas(drawn_atlas)
    shown = html(opened("concept_map", concept="6"))
    assert "Drawn with the atlas" not in shown and "Fooling" not in shown
    assert "Drawn with the atlas" in html(opened("concept_map", concept="5", job="abc"))


@pytest.fixture(scope="module")
def judged_atlas(plain_atlas, tmp_path_factory):
    """Concept 5 stands for discs, and the judge saw one; 7 stands for nothing; 9 was drawn before there was a judge."""
    path = shutil.copytree(plain_atlas, tmp_path_factory.mktemp("judged") / "atlas")
    scores = {"score": [1.3, 1.2, 0.1], "codes_score": [0.4, 0.0, 0.1], "reference_score": 1.2, "strength": 0.3}
    made = {"method": "energy-guidance", "steps": 40, "seed": 3, "gradient": "eps"}
    kept = {5: [True, False, False], 7: [True, False, False], 9: [None] * 3}
    rows = [
        pd.DataFrame({"concept": concept, "rank": range(3), **scores, **made, "recognised": pd.array(seen, "boolean")})
        for concept, seen in kept.items()
    ]
    add_to_gallery(path, pd.concat(rows), lambda concept, rank: Image.new("RGB", (16, 16), "teal"))
    attempts = {"method": ["maco", "pixels"], "score": [0.6, 1.62], "reference_score": 1.2, "steps": 200, "seeds": 2}
    add_fooling(path, pd.DataFrame({"concept": 5, **attempts, "recognised": [True, False], "seconds": 3.0}))
    add_judge(path, "../judge", {5: "kind: disc", 9: "kind: disc"})
    return path


def test_a_card_says_what_the_judge_recognises_and_flags_what_only_reaches_the_score(use_atlas, judged_atlas):
    use_atlas(judged_atlas)
    shown = html(opened("concept_map", concept="5"))
    assert "<b>Recognised as disc: 1 of 3</b>. Mean intrinsic score" in shown
    fooled = "optimised pixels reach 1.35 × the best real images' score and are not recognised as disc"
    assert f"Fooling: {fooled} (best of 2 methods, 200 steps, 2 seeds)." in unescape(shown)
    captions = ["recognised", "reaches the score, not recognised", "not recognised"]
    assert [shown.count(f'<span class="ba-verdict">{caption}</span>') for caption in captions[::2]] == [1, 1]
    assert shown.count(f'<span class="ba-verdict ba-fooling">{captions[1]}</span>') == 1


@pytest.mark.parametrize("concept", ["7", "9"])
def test_what_was_not_judged_says_nothing_of_it(use_atlas, judged_atlas, concept):
    use_atlas(judged_atlas)
    shown = html(opened("concept_map", concept=concept))
    assert "Drawn with the atlas" in shown and "ecognised" not in shown
