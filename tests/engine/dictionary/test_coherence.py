"""Coherence against all cosines at once, and where it is known."""

import pytest
import torch
import torch.nn.functional as F

from engine.dictionary.geometry import coherence


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_coherence_agrees_with_all_cosines(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dictionary.geometry.BLOCK", block)
    atoms = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.rand(40, 1)
    cosines = F.cosine_similarity(atoms[:, None], atoms[None], dim=-1).abs().fill_diagonal_(-1)
    found = coherence(atoms)
    assert torch.allclose(found.value, cosines.max(dim=1).values, atol=1e-6)
    assert torch.equal(found.nearest, cosines.argmax(dim=1))


def test_orthogonal_opposite_and_absent_atoms() -> None:
    found = coherence(torch.tensor([[2.0, 0, 0], [0, 3, 0], [0, -1, 0], [0, 0, 0]]))
    assert found.value.tolist() == [0, 1, 1, 0] and found.nearest[1:3].tolist() == [2, 1]
