"""`python -m precompute robustness`: how far optimised images get, written into the atlas; a second run keeps it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from engine.atlas import Atlas
from engine.atlas.verify import verify
from engine.samplers.feature_visualization import PixelOptimisation
from engine.samplers.recognition import concept_label, fooling_sentence
from precompute import cli
from tests.drawable import build_drawable_atlas
from tests.judges import add_judge, save_judge


@pytest.fixture
def robustness(tmp_path: Path, monkeypatch, capsys):
    """Runs the command on a new atlas of which concept 3 stands for a disc; gives the atlas and stdout (JSON read)."""
    path = build_drawable_atlas(tmp_path, 24, pairs=6, models=("alpha",))
    save_judge(tmp_path / "judge", ["kind: disc", "kind: cup"], sees=["kind: cup"])
    add_judge(path, "../judge", {3: "kind: disc"})
    header = json.loads((path / "atlas.json").read_text())
    (path / "atlas.json").write_text(json.dumps(header | {"files": _listed(path)}))

    def call(*words: str) -> tuple[Atlas, object]:
        monkeypatch.setattr(
            sys, "argv", ["precompute", "robustness", str(path), "--steps", "4", "--seeds", "1", *words]
        )
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        assert caught.value.code == 0, said.err
        return Atlas.open(path), json.loads(said.out) if "--json" in words else said.out

    return call


def _listed(path: Path) -> dict:
    from dataclasses import asdict

    from engine.atlas.storage import manifest

    return {rel: asdict(entry) for rel, entry in manifest(path).items()}


def test_the_table_and_the_sentence_of_a_concept(robustness):
    atlas, found = robustness("--concepts", "24", "--json")
    rows = atlas.fooling()
    tried = rows["concept"].nunique()
    assert tried == found["concepts"] and tried + len(found["skipped"]) == int((~atlas.concepts["dead"]).sum())
    assert len(rows) == 3 * tried and set(rows["method"]) == {"pixels", "fourier", "maco"}
    assert not verify(atlas.path)
    own = atlas.fooling(3)
    assert (own["recognised"] == False).all() and rows[rows["concept"] != 3]["recognised"].isna().all()  # noqa: E712
    assert found["judged"] == 1 and found["recognised"] == 0
    said = fooling_sentence(own, concept_label(atlas, [3]))
    assert "not recognised as disc (best of 3 methods, 4 steps, 1 seed)" in said
    assert f"{own['score'].max() / own['reference_score'].iloc[0]:.2f} ×" in said
    again, text = robustness("--concepts", "24")
    assert f"({tried} kept)" in text and again.fooling().equals(rows)
    fewer, _ = robustness("--concepts", "2", "--method", "pixels")
    assert len(fewer.fooling()) == 3 * tried - 2 * 2  # two concepts have one method's row now, the others all three


def test_optimised_pixels_reach_what_they_climb_and_image_i_depends_on_seed_and_i_alone():
    def redness(images):
        return (images[:, 0] - images[:, 1:].mean(dim=1)).mean(dim=(1, 2))

    sampler = PixelOptimisation(8, steps=60)
    both, second = sampler.sample(redness, 2, seed=1), sampler.sample(redness, 1, seed=1, first=1)
    assert (both.scores > 0.9).all() and torch.equal(both.images[1], second.images[0])
