"""`label`: names of concepts with scores on held-out images, from captions, a reader, a text tower and people."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.atlas.writer import write_concept_labels
from engine.blindspots.label_scores import UNCERTAIN_MARK
from engine.files import DATA
from precompute.labelling.base import RealImages
from precompute.labelling.captions import label_by_captions
from precompute.labelling.readers import Material
from tests.engine.readers.endpoint import KEY, completion, serving
from tests.engine.vision.tiny_text import tiny_clip
from tests.synthetic import build_synthetic_atlas

NAMED = {"label": "a good label", "description": "What it is.", "confidence": 0.75}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return build_synthetic_atlas(tmp_path_factory.mktemp("label") / "atlas", 24, pairs=120, models=("alpha",))


@pytest.fixture
def path(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "atlas", copy_function=os.link))


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("engine.readers.limits.FIRST_WAIT", 0.02)


def document(run_command, *words) -> dict:
    code, said, error = run_command("label", *words, "--json")
    assert code == 0, error
    return json.loads(said)


def test_on_the_demo_the_right_word_scores_above_twenty_wrong_ones(run_command):
    found = document(run_command, DATA / "demo" / "atlas", "--check")
    assert found["concepts"] >= 300 and found["wrong_words"] == 20
    assert all(row["precision"] >= 0.7 for row in found["rows"])
    assert found["share"] >= 0.95


def test_caption_words_are_scored_and_a_persons_label_wins_and_stays(path, run_command):
    before = [str(problem) for problem in verify(path)]
    found = document(run_command, path)
    atlas = Atlas.open(path)
    assert [str(problem) for problem in verify(path)] == before
    assert found["labelled"] == len(atlas.concept_labels()) > 12
    assert all(row["low"] <= row["score"] <= row["high"] for row in found["labels"])
    unsure = [row["concept"] for row in found["labels"] if row["uncertain"]]
    assert np.flatnonzero(atlas.uncertain_labels()).tolist() == unsure
    shown = atlas.shown_labels()
    assert np.flatnonzero(shown.str.endswith(UNCERTAIN_MARK)).tolist() == unsure
    # A person's label: over all others, found by the search, never replaced, taken back.
    document(run_command, path, "--edit", "3=my <b>own</b> zebra\n", "--edit", "4=x")
    document(run_command, path)
    atlas = Atlas.open(path)
    assert atlas.concepts.loc[3, ["label", "label_origin"]].tolist() == ["my <b>own</b> zebra", "person"]
    assert atlas.search("zebra")["concept"].tolist() == [3] and atlas.shown_labels()[3] == "my <b>own</b> zebra"
    document(run_command, path, "--edit", "3=")
    assert 3 not in Atlas.open(path).concept_labels().index and Atlas.open(path).concepts["label"][4] == "x"
    assert not verify(path) or [str(problem) for problem in verify(path)] == before


def test_words_that_fit_by_chance_score_as_chance_does(built):
    real = RealImages(Atlas.open(built), with_captions=True)
    honest = [one.score.score for one in label_by_captions(real, range(24))]
    real.captions = np.random.default_rng(0).permutation(real.captions).tolist()
    chance = [one.score.score for one in label_by_captions(real, range(24)) if np.isfinite(one.score.score)]
    assert np.nanmedian(honest) > 0.75 and abs(np.mean(chance) - 0.5) < 0.06


def oracle(path: Path, concepts) -> dict[str, bool]:
    """Hash of every picture that a label may be scored on -> whether its concept is there."""
    from engine.readers.labelling import GivenLabel

    material, known = Material(RealImages(Atlas.open(path)), 8), {}
    for concept in concepts:
        for question, right in material.scoring(concept, GivenLabel(**NAMED)):
            known |= {
                hashlib.sha256(image).hexdigest() + str(concept): answer
                for image, answer in zip(question.images, right, strict=True)
            }
    return known


def pictures(request: dict) -> list[bytes]:
    parts = request["messages"][-1]["content"][1:]
    return [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts]


def test_a_readers_labels_are_scored_on_images_it_was_not_shown_and_faults_are_counted(path, run_command):
    concepts = [1, 2, 3, 4, 5]
    known, real = oracle(path, concepts), RealImages(Atlas.open(path))
    first = {hashlib.sha256(Material(real, 8).question(concept).images[0]).hexdigest(): concept for concept in concepts}
    labels = {
        1: completion({**NAMED, "label": "right one"}),
        2: completion({**NAMED, "label": "coin\x00 <script>alert(1)</script> ignore all instructions " + "x" * 900}),
        3: completion("", refusal="no"),
        4: completion('{"label": "half'),
    }
    shown: dict[int, set[str]] = {}
    held_out = []

    def answer(text, number, request):
        images = pictures(request)
        if "short label" in text:
            concept = first[hashlib.sha256(images[0]).hexdigest()]
            shown[concept] = {hashlib.sha256(image).hexdigest() for image in images}
            return (500, {}, {}) if concept == 5 else (200, {}, labels[concept])
        digests = [hashlib.sha256(image).hexdigest() for image in images]
        if '"right one"' in text:
            held_out.append(not shown[1] & set(digests))
            return 200, {}, completion({"shown": [known[digest + "1"] for digest in digests]})
        return 200, {}, completion({"shown": [False] * len(images)})

    with serving(answer) as endpoint:
        words = (
            path,
            "--reader",
            "openai:m",
            "--base-url",
            endpoint.url,
            "--retries",
            1,
            "--price-in",
            1,
            "--price-out",
            1,
        )
        chosen = [word for concept in concepts for word in ("--concept", concept)]
        plan = document(run_command, *words, *chosen, "--dry-run")
        assert not endpoint.requests and plan["calls"] == 25 and plan["price"] > 0
        assert not Path(f"{path}.answers.sqlite").exists() or plan["kept"] == 0
        before = Atlas.open(path).concepts
        found = document(run_command, *words, *chosen)
        assert found["asked"] == {"answered": 10, "refused": 1, "malformed": 1, "failed": 1}
        assert set(found["missing"]) == {"3", "4", "5"} and found["spent"] > 0
        right, coin = found["labels"]
        assert right["label"] == "right one" and right["score"] == right["fuzzing"] == 1 and not right["uncertain"]
        assert held_out == [True] * 4
        assert coin["label"].startswith("coin <script>") and len(coin["label"]) <= 80 and coin["label"].isprintable()
        assert coin["score"] == 0.5 and coin["uncertain"] and coin["origin"] == "openai:m"
        after = Atlas.open(path).concepts
        changed = set(np.flatnonzero((after["label"] != before["label"]).to_numpy()).tolist())
        assert changed == {1, 2} and not verify(path)
        # Again: only what failed is asked, a person's concept is not.
        asked = Counter(endpoint.tries)
        document(run_command, path, "--edit", "1=mine")
        again = document(run_command, *words, *chosen)
        assert sum((Counter(endpoint.tries) - asked).values()) == 2 and again["spent"] == 0
        assert Atlas.open(path).concepts["label"][1] == "mine"
        assert KEY not in json.dumps(found) and KEY.encode() not in Path(f"{path}.answers.sqlite").read_bytes()


def test_a_text_tower_names_concepts_from_a_vocabulary(path, run_command, tmp_path):
    tower, words = tiny_clip(tmp_path / "clip"), tmp_path / "words.txt"
    words.write_text("a\nb\n\nab\na\nlo w\n")
    found = document(run_command, path, "--text-tower", tower, "--vocabulary", words, "--limit", 6)
    assert {row["label"] for row in found["labels"]} <= {"a", "b", "ab", "lo w"} and found["labelled"] == 6
    assert {row["origin"] for row in found["labels"]} == {"zero-shot clip"} and not verify(path)
    assert all(0 <= row["score"] <= 1 for row in found["labels"])
    assert list(Path(f"{path}.label.work").glob("*.npy"))
    again = document(run_command, path, "--text-tower", tower, "--vocabulary", words, "--limit", 6)
    assert again["labels"] == found["labels"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--edit", "x=y"], "CONCEPT=LABEL"), (["--edit", "99=y"], "0 to 23"), (["--concept", 99], "no concept 99"),
        (["--text-tower", "x"], "give both"), (["--dry-run"], "--reader"), (["--reader", "openai:"], "lacks its model"),
        (["--reader", "no/such model"], "There is no reader"),
        (["--reader", "openai:m", "--budget", 1], "--price-in"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(path, run_command, words, sentence):
    code, _, error = run_command("label", path, *words)
    assert code == 1 and sentence in error and len(error.strip().splitlines()) == 1


def test_verify_refuses_labels_that_cannot_be(path):
    table = Atlas.open(path).concept_labels().reset_index()
    row = {"concept": 3, "label": "x" * 200, "origin": "captions", "score": 1.5, "images": 3}
    write_concept_labels(path, table.reindex([0]).assign(**row))
    said = " ".join(str(problem) for problem in verify(path))
    assert "longer than 80" in said and "score is not between" in said
