"""The encoder's last lesson: relatives share what they should, and patches pick them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from precompute.tabletop import patchwise, selfsupervised
from precompute.tabletop.dataset import rendered
from precompute.tabletop.loop import Budget
from precompute.tabletop.scenes import corpus

WEIGHTS = (patchwise.PLAN.closeness, patchwise.PLAN.temperature)


def test_repainted_toys_keep_their_kinds_alone():
    scenes = corpus(200, 3)
    others = [patchwise.repainted(scene, np.random.default_rng(index)) for index, scene in enumerate(scenes)]
    for scene, other in zip(scenes, others, strict=True):
        assert sorted(t.kind for t in other.things) == sorted(t.kind for t in scene.things)
    kept = [s.things[0].colour == o.things[0].colour for s, o in zip(scenes, others, strict=True) if len(s.things) == 1]
    assert 0.02 < np.mean(kept) < 0.3, "one colour in eight"


def test_the_surface_stays_and_the_toys_go():
    scenes = corpus(200, 3)
    others = [patchwise.same_surface(scene, np.random.default_rng(index)) for index, scene in enumerate(scenes)]
    assert [s.background for s in scenes] == [o.background for o in others]
    assert np.mean([s.things[0].kind == o.things[0].kind for s, o in zip(scenes, others, strict=True)]) < 0.3
    assert all(s.seed != o.seed for s, o in zip(scenes, others, strict=True))


def test_patches_that_are_their_relatives_agree_and_strangers_do_not():
    relatives = torch.eye(4, 8)
    patches = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0))
    patches[:, :5] = relatives[:, None]
    assert patchwise._disagreement(patches, relatives, 5, *WEIGHTS) < 0.01, "five patches know, and only five are asked"
    assert patchwise._disagreement(patches, relatives, 9, *WEIGHTS) > 0.2
    assert patchwise._disagreement(patches, relatives.roll(1, dims=0), 5, *WEIGHTS) > 1


def test_closeness_waits_until_picking_is_learned():
    plan = replace(patchwise.PLAN, budget=Budget(100, batch=4, learning_rate=1e-3), closeness=2.0, patience=(0.2, 0.6))
    assert [plan.closeness_at(step) for step in (0, 20, 40, 60, 99)] == pytest.approx([0, 0, 1, 2, 2])


def test_a_short_lesson_teaches_every_part(tmp_path):
    scenes = corpus(12, 0)
    rng = np.random.default_rng(1)
    pictures = rendered(scenes, "some", tmp_path)
    repaints = rendered([patchwise.repainted(s, rng) for s in scenes], "repainted", tmp_path)
    surfaces = rendered([patchwise.same_surface(s, rng) for s in scenes], "surface", tmp_path)
    student = selfsupervised.Student(selfsupervised.build())
    before = {name: weight.clone() for name, weight in student.encoder.named_parameters()}
    plan = replace(patchwise.PLAN, budget=Budget(2, batch=4, learning_rate=1e-3, averaging=0.5))
    after = patchwise.train(student, pictures, (repaints, surfaces), tmp_path, plan).encoder
    still = {name for name, weight in after.named_parameters() if torch.equal(weight, before[name])}
    assert still <= {"embeddings.mask_token"}, "no patch is masked in this lesson"
