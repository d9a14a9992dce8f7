"""The encoder's stages: same toys elsewhere, hidden patches, partners found; relatives that share what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from precompute.demo_world import encoder
from precompute.demo_world.optimisation import Budget, rendered
from precompute.demo_world.scenes import corpus

PATCHES = encoder.PatchTrainingConfig()
WEIGHTS = (PATCHES.closeness, PATCHES.temperature)


def test_the_same_toys_are_met_elsewhere():
    for index, scene in enumerate(corpus(50, 3)):
        other = encoder.moved(scene, np.random.default_rng(index))
        assert sorted(t.phrase for t in other.things) == sorted(t.phrase for t in scene.things)
        assert [(t.x, t.y) for t in other.things] != [(t.x, t.y) for t in scene.things]


def test_the_asked_share_of_patches_is_hidden():
    hidden = encoder._hide(5, 0.5, torch.Generator().manual_seed(0))
    assert hidden.shape == (5, 64) and (hidden.sum(dim=1) == 32).all()


def test_identical_views_surprise_least():
    views = torch.nn.functional.normalize(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    same = encoder.info_nce(views, views, 0.1)
    shuffled = encoder.info_nce(views, views.roll(1, dims=1), 0.1)
    assert same < 0.1 < shuffled


def test_a_short_training_gives_a_transformers_model(tmp_path):
    scenes = corpus(16, 0)
    pictures = rendered(scenes, "some", tmp_path)
    partners = rendered([encoder.moved(s, np.random.default_rng(1)) for s in scenes], "again", tmp_path)
    short = Budget(2, batch=4, learning_rate=1e-3, averaging=0.5)
    config = replace(encoder.PretrainingConfig(), pixels=short, pairs=short)
    model = encoder.pretrain(pictures, partners, tmp_path, config).encoder
    model.save_pretrained(tmp_path / "encoder")
    tokens = model(torch.zeros(1, 3, 64, 64)).last_hidden_state
    assert tokens.shape == (1, 1 + 4 + 64, 192) and tokens.isfinite().all()


def test_repainted_toys_keep_their_kinds_alone():
    scenes = corpus(200, 3)
    others = [encoder.repainted(scene, np.random.default_rng(index)) for index, scene in enumerate(scenes)]
    for scene, other in zip(scenes, others, strict=True):
        assert sorted(t.kind for t in other.things) == sorted(t.kind for t in scene.things)
    kept = [s.things[0].colour == o.things[0].colour for s, o in zip(scenes, others, strict=True) if len(s.things) == 1]
    assert 0.02 < np.mean(kept) < 0.3, "one colour in eight"


def test_the_surface_stays_and_the_toys_go():
    scenes = corpus(200, 3)
    others = [encoder.same_surface(scene, np.random.default_rng(index)) for index, scene in enumerate(scenes)]
    assert [s.background for s in scenes] == [o.background for o in others]
    assert np.mean([s.things[0].kind == o.things[0].kind for s, o in zip(scenes, others, strict=True)]) < 0.3
    assert all(s.seed != o.seed for s, o in zip(scenes, others, strict=True))


def test_patches_that_are_their_relatives_agree_and_strangers_do_not():
    relatives = torch.eye(4, 8)
    patches = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0))
    patches[:, :5] = relatives[:, None]
    assert encoder._patch_contrast(patches, relatives, 5, *WEIGHTS) < 0.01, "five patches know, and only five are asked"
    assert encoder._patch_contrast(patches, relatives, 9, *WEIGHTS) > 0.2
    assert encoder._patch_contrast(patches, relatives.roll(1, dims=0), 5, *WEIGHTS) > 1


def test_closeness_waits_until_picking_is_learned():
    config = replace(PATCHES, budget=Budget(100, batch=4, learning_rate=1e-3), closeness=2.0, patience=(0.2, 0.6))
    assert [config.closeness_at(step) for step in (0, 20, 40, 60, 99)] == pytest.approx([0, 0, 1, 2, 2])


def test_a_short_training_moves_every_part(tmp_path):
    scenes = corpus(12, 0)
    rng = np.random.default_rng(1)
    pictures = rendered(scenes, "some", tmp_path)
    repaints = rendered([encoder.repainted(s, rng) for s in scenes], "repainted", tmp_path)
    surfaces = rendered([encoder.same_surface(s, rng) for s in scenes], "surface", tmp_path)
    student = encoder.Student(encoder.build_encoder())
    before = {name: weight.clone() for name, weight in student.encoder.named_parameters()}
    config = replace(PATCHES, budget=Budget(2, batch=4, learning_rate=1e-3, averaging=0.5))
    after = encoder.train_patches(student, pictures, (repaints, surfaces), tmp_path, config).encoder
    still = {name for name, weight in after.named_parameters() if torch.equal(weight, before[name])}
    assert still <= {"embeddings.mask_token"}, "no patch is masked in this stage"
