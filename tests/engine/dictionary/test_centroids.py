"""Candidates of archetypal dictionaries."""

import torch

from engine.dictionary.archetypal import kmeans


def test_clusters_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(6)[:2]
    tokens = centres.repeat(150, 1) + 0.1 * torch.randn(300, 6, generator=generator)
    found = kmeans(tokens, 2, seed=0)
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.1


def test_the_seed_decides() -> None:
    tokens = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kmeans(tokens, 9, seed=3), kmeans(tokens, 9, seed=3))
    assert not torch.equal(kmeans(tokens, 9, seed=3), kmeans(tokens, 9, seed=4))


def test_always_the_asked_number_and_never_zero() -> None:
    few = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    for count in (1, 2, 3, 8):
        found = kmeans(few, count, seed=0)
        assert found.shape == (count, 2)
        assert found.norm(dim=-1).min() > 0.1
