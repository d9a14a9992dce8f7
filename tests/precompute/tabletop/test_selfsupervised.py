"""The encoder's lessons: same toys elsewhere, hidden patches, partners found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from precompute.tabletop import selfsupervised
from precompute.tabletop.dataset import rendered
from precompute.tabletop.loop import Budget
from precompute.tabletop.scenes import corpus


def test_the_same_toys_are_met_elsewhere():
    for index, scene in enumerate(corpus(50, 3)):
        other = selfsupervised.elsewhere(scene, np.random.default_rng(index))
        assert sorted(t.phrase for t in other.things) == sorted(t.phrase for t in scene.things)
        assert [(t.x, t.y) for t in other.things] != [(t.x, t.y) for t in scene.things]


def test_the_asked_share_of_patches_is_hidden():
    hidden = selfsupervised._hide(5, 0.5, torch.Generator().manual_seed(0))
    assert hidden.shape == (5, 64) and (hidden.sum(dim=1) == 32).all()


def test_identical_views_surprise_least():
    views = torch.nn.functional.normalize(torch.randn(2, 16, 8), dim=-1)
    same = selfsupervised.mutual_surprise(views, views, 0.1)
    shuffled = selfsupervised.mutual_surprise(views, views.roll(1, dims=1), 0.1)
    assert same < 0.1 < shuffled


def test_a_short_training_gives_a_transformers_model(tmp_path):
    scenes = corpus(16, 0)
    pictures = rendered(scenes, "some", tmp_path)
    partners = rendered([selfsupervised.elsewhere(s, np.random.default_rng(1)) for s in scenes], "again", tmp_path)
    short = Budget(2, batch=4, learning_rate=1e-3, averaging=0.5)
    plan = replace(selfsupervised.PLAN, pixels=short, pairs=short)
    encoder = selfsupervised.train(pictures, partners, tmp_path, plan).encoder
    encoder.save_pretrained(tmp_path / "encoder")
    tokens = encoder(torch.zeros(1, 3, 64, 64)).last_hidden_state
    assert tokens.shape == (1, 1 + 4 + 64, 192) and tokens.isfinite().all()
