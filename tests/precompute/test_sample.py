"""`python -m precompute sample`: every method, weighted sets, matched scores, and one sentence for what cannot be."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.atlas import Atlas
from engine.samplers.registry import SAMPLERS
from precompute import cli
from tests.drawable import build_drawable_atlas

CONCEPTS = 24


@pytest.fixture(scope="module")
def drawable(tmp_path_factory) -> Path:
    return build_drawable_atlas(tmp_path_factory.mktemp("sample"), CONCEPTS, pairs=6, models=("alpha",))


@pytest.fixture
def sample(monkeypatch, capsys, drawable, tmp_path):
    """Runs the command in this process; gives exit code, stdout (JSON read) and stderr."""

    def call(*words: str, atlas: Path = drawable) -> tuple[int, object, str]:
        out = str(tmp_path / "out")
        monkeypatch.setattr(
            sys, "argv", ["precompute", "sample", str(atlas), "--out", out, "--steps", "3", "--states", "2", *words]
        )
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        text = json.loads(said.out) if "--json" in words and said.out else said.out
        return caught.value.code, text, said.err

    return call


def test_images_and_scores_with_their_mean_and_its_standard_error(sample, tmp_path):
    code, found, _ = sample("--concept", "2", "--count", "3", "--json")
    assert code == 0 and [Image.open(tmp_path / "out" / name).size for name in found["images"]] == [(32, 32)] * 3
    assert found["mean_score"] == pytest.approx(np.mean(found["scores"]))
    assert found["standard_error"] == pytest.approx(np.std(found["scores"], ddof=1) / 3**0.5)
    assert found["matched"] is None and found["parameters"]["strength"] == 0.2


def test_a_weighted_set_is_scored_by_its_weights(sample):
    apart = [sample("--concept", str(k), "--method", "prior", "--count", "1", "--json")[1]["scores"][0] for k in (2, 5)]
    words = ("--concept", "2", "--concept", "5", "--method", "prior", "--count", "1", "--json")
    assert sample(*words)[1]["scores"][0] == pytest.approx(apart[0] + apart[1], rel=1e-4)
    both = sample(*words, "--weight", "2", "--weight", "-0.5")[1]
    assert both["scores"][0] == pytest.approx(2 * apart[0] - apart[1] / 2, rel=1e-4)
    assert both["parameters"]["others"] == [5] and both["parameters"]["weights"] == [2.0, -0.5]
    assert sample(*words, "--weight", "3")[1]["scores"][0] == pytest.approx(apart[0] + 3 * apart[1], rel=1e-4)


def test_the_best_real_images_of_a_set_are_the_best_of_the_exemplars_of_all_its_concepts(sample, drawable):
    atlas = Atlas.open(drawable)
    found = sample("--concept", "2", "--concept", "5", "--method", "prior", "--count", "1", "--json")[1]["references"]
    pool = {image for concept in (2, 5) for image in atlas.exemplars("real", concept, 16)["image"]}
    scores = [item["score"] for item in found]
    assert {item["image"] for item in found} <= pool and scores == sorted(scores, reverse=True) and len(found) == 4


def test_matching_reaches_the_best_real_images_and_says_the_strength(sample):
    code, said, _ = sample("--concept", "2", "--match", "--count", "4", "--json", "--steps", "8")
    assert code == 0
    found = said["matched"]
    assert found["mean"] == pytest.approx(said["mean_score"]) and found["samples"] == 4
    assert found["strength"] == said["parameters"]["strength"] > 0 and found["standard_error"] > 0
    assert abs(found["mean"] - said["reference_score"]) <= max(found["standard_error"] / 2, 0.011 * found["mean"])
    cap = said["parameters"]["cap"]
    assert cap == pytest.approx(1.02 * said["reference_score"])
    assert said["parameters"]["until"] == 0.8
    words = ("--strength", str(found["strength"]), "--cap", str(cap), "--until", "0.8", "--steps", "8", "--json")
    again = sample("--concept", "2", *words)[1]
    assert again["scores"] == pytest.approx(said["scores"])


SLOW = {"soft-prompt": [pytest.mark.slow]}
"""It learns a prompt first."""


@pytest.mark.parametrize("method", [pytest.param(name, marks=SLOW.get(name, [])) for name in SAMPLERS])
def test_every_method_draws(sample, method: str):
    code, found, err = sample("--concept", "2", "--method", method, "--count", "1", "--particles", "2", "--json")
    assert code == 0, err
    assert len(found["images"]) == 1 and found["parameters"]["method"] == method and found["standard_error"] is None


@pytest.mark.parametrize("method", [name for name in SAMPLERS if name.startswith("energy")])
def test_the_first_image_is_the_same_in_any_count(sample, method: str):
    few, more = (sample("--concept", "2", "--method", method, "--count", count, "--json")[1] for count in ("1", "2"))
    assert few["scores"][0] == pytest.approx(more["scores"][0], rel=1e-4)


def test_the_filter_says_how_far_the_tilt_is_from_the_prior(sample):
    _, found, _ = sample("--concept", "2", "--method", "energydps-smc", "--count", "2", "--particles", "3", "--json")
    assert set(found["tilt"]) >= {"beta", "log_partition", "effective_particles", "kl_to_prior"}
    code, out, _ = sample("--concept", "2", "--method", "energydps-smc", "--count", "2", "--particles", "3")
    assert code == 0 and "log-partition" in out and "effective particles of 6." in out


def test_the_algorithm_as_printed_has_its_knobs(sample):
    code, found, _ = sample("--concept", "2", "--method", "energydps", "--zeta", "0.05", "--cap", "0.5", "--json")
    assert code == 0 and found["parameters"]["gradient"] == "raw" and found["parameters"]["zeta"] == 0.05
    for zeta in ("-1", "0", "nan"):
        code, _, err = sample("--concept", "2", "--method", "energydps", "--zeta", zeta)
        assert code == 1 and "zeta must be a number above 0" in err
    code, _, err = sample("--concept", "2", "--method", "maco", "--gradient", "raw")
    assert code == 1 and "has no gradient to scale" in err
    code, _, err = sample("--concept", "2", "--method", "energydps", "--gradient", "steep")
    assert code == 1 and "choose from full, light and eps, unit, raw" in err


def test_text_says_what_was_found_and_the_command_that_draws_it_again(sample, drawable, tmp_path):
    code, out, _ = sample("--concept", "2", "--match", "--steps", "8")
    assert code == 0 and "Mean score" in out and "standard error" in out and "best real images score" in out
    assert "Strength" in out and "trials" in out
    command = shlex.split(out.split("without the search: ")[1].splitlines()[0])
    assert command[:5] == ["python", "-m", "precompute", "sample", str(drawable)] and "--match" not in command
    pictures = [file.read_bytes() for file in sorted((tmp_path / "out").glob("*.png"))]
    assert sample(*command[5:-2])[0] == 0
    assert [file.read_bytes() for file in sorted((tmp_path / "out").glob("*.png"))] == pictures


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--concept", "999"), "There is no concept 999: choose from 0 to 23"),
        (("--concept", "2", "--method", "magic"), f"'magic': choose one of {next(iter(SAMPLERS))}"),
        (("--concept", "2", "--method", "prior", "--match"), "'prior' has no strength"),
        (("--concept", "2", "--weight", "1", "--weight", "2"), "do not fit concepts [2]"),
        (("--concept", "2", "--concept", "3", "--weight", "nan"), "one finite number each"),
        (("--concept", "2", "--match", "--steps", "1"), "is out of reach"),
        (("--concept", "2", "--match", "--cap", "0.0001"), "The cap 0.0001 lies below the mean score to match"),
        (("--concept", "2", "--until", "1.5"), "between 0 and 1, not 1.5"),
        (("--concept", "2", "--cap", "-1"), "The cap -1.0 is no score that a push could reach"),
    ],
)
def test_what_cannot_be_is_one_sentence(sample, words, sentence):
    code, out, err = sample(*words)
    assert code == 1 and out == "" and sentence in err.replace("\n", " ")


def test_a_dead_concept_is_one_sentence(sample, drawable, monkeypatch):
    frame = Atlas.open(drawable).concepts.assign(dead=lambda table: table.index == 2)
    monkeypatch.setattr(Atlas, "concepts", property(lambda atlas: frame))
    code, _, err = sample("--concept", "3", "--concept", "2")
    assert code == 1 and "Concept 2 of atlas 'synthetic' is dead" in err.replace("\n", " ")
