"""`python -m precompute robustness`: how far optimised images get, written into the atlas; a second run keeps it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from engine.atlas import Atlas
from engine.atlas.storage import manifest
from engine.atlas.verify import verify
from engine.samplers.feature_visualization import PixelOptimisation
from engine.samplers.recognition import concept_label, fooling_sentence
from precompute import cli
from precompute.robustness import chosen_concepts
from tests.drawable import build_drawable_atlas
from tests.judges import add_judge, save_judge


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    """A new atlas whose first three concepts are tried; the second stands for a disc, which the judge never sees."""
    path = build_drawable_atlas(tmp_path, 24, pairs=6, models=("alpha",))
    save_judge(tmp_path / "judge", ["kind: disc", "kind: cup"], sees=["kind: cup"])
    add_judge(path, "../judge", {chosen_concepts(Atlas.open(path), 3)[1]: "kind: disc"})
    header = json.loads((path / "atlas.json").read_text())
    files = {rel: asdict(entry) for rel, entry in manifest(path).items()}
    (path / "atlas.json").write_text(json.dumps(header | {"files": files}))
    return path


@pytest.fixture
def robustness(judged: Path, monkeypatch, capsys):
    """Runs the command; gives the atlas and stdout (JSON read)."""

    def call(*words: str) -> tuple[Atlas, object]:
        budget = ("--concepts", "3", "--steps", "3", "--seeds", "1")
        monkeypatch.setattr(sys, "argv", ["precompute", "robustness", str(judged), *budget, *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        assert caught.value.code == 0, said.err
        return Atlas.open(judged), json.loads(said.out) if "--json" in words else said.out

    return call


def test_what_was_tried_is_in_the_atlas_and_kept(robustness):
    atlas, found = robustness("--json")
    rows = atlas.fooling()
    disc = int(atlas.recognition().index[0])
    assert found["concepts"] == rows["concept"].nunique() == 3 and not found["skipped"] and not verify(atlas.path)
    assert len(rows) == 9 and set(rows["method"]) == {"pixels", "fourier", "maco"}
    own = atlas.fooling(disc)
    assert not own["recognised"].any() and rows["recognised"].notna().sum() == len(own) == 3
    assert found["judged"] == 1 and found["recognised"] == 0
    said = fooling_sentence(own, concept_label(atlas, [disc]))
    assert "not recognised as disc (best of 3 methods, 3 steps, 1 seed)" in said
    assert f" reach {own['score'].max() / own['reference_score'].iloc[0]:.2f} × the best real images' score" in said
    again, text = robustness()
    assert "3 concepts (3 kept), median" in text and again.fooling().equals(rows)


def test_optimised_pixels_reach_what_they_climb_and_image_i_depends_on_seed_and_i_alone():
    def redness(images):
        return (images[:, 0] - images[:, 1:].mean(dim=1)).mean(dim=(1, 2))

    sampler = PixelOptimisation(8, steps=60)
    both, second = sampler.sample(redness, 2, seed=1), sampler.sample(redness, 1, seed=1, first=1)
    assert (both.scores > 0.9).all() and torch.equal(both.images[1], second.images[0])
