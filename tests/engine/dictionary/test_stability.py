"""Stability: invariances, all permutations as the counterpart, and the sparse matching against the dense one."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from engine.dictionary.geometry import match, stability
from engine.errors import BlindspotError


def noisy(atoms: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """The same atoms in another order, of other lengths, each moved a little."""
    generator = torch.Generator().manual_seed(seed)
    moved = F.normalize(atoms, dim=1) + noise * torch.randn(atoms.shape, generator=generator) / atoms.shape[1] ** 0.5
    order = torch.randperm(len(atoms), generator=generator)
    return moved[order] * (0.1 + torch.rand(len(atoms), 1, generator=generator))


def atoms(count: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_the_best_of_all_permutations_is_found() -> None:
    a, b = F.normalize(atoms(6, 3), dim=1), F.normalize(atoms(6, 3, 1), dim=1)
    best = max(float((a * b[list(order)]).sum(dim=1).mean()) for order in permutations(range(6)))
    found = stability([a, b])
    assert found.mean == pytest.approx(best, abs=1e-6) and float(found.concept.mean()) == pytest.approx(best, abs=1e-6)


def test_order_and_length_do_not_matter_but_the_sign_does() -> None:
    a = atoms(50, 16)
    assert stability([a, noisy(a, 0, 1), noisy(a, 0, 2)]).mean == pytest.approx(1, abs=1e-6)
    assert stability([torch.eye(8), -torch.eye(8)]).mean == pytest.approx(0, abs=1e-6)


def test_three_dictionaries_are_compared_in_pairs() -> None:
    a = atoms(60, 16)
    dictionaries = [a, noisy(a, 0.5, 1), noisy(a, 2, 2)]
    found = stability(dictionaries)
    one, two = (stability([a, other]) for other in dictionaries[1:])
    rest = stability(dictionaries[1:])
    assert found.mean == pytest.approx((one.mean + two.mean + rest.mean) / 3)
    assert torch.allclose(found.concept, (one.concept + two.concept) / 2)
    assert torch.equal(found.pairs, found.pairs.T) and found.pairs.diagonal().tolist() == [1, 1, 1]
    assert one.mean > two.mean + 0.2


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_matching_only_rivals_finds_what_matching_all_pairs_finds(noise: float) -> None:
    a = F.normalize(atoms(600, 24), dim=1)
    b = F.normalize(noisy(a, noise, 3), dim=1)
    dense, sparse = match(a, b), match(a, b, dense=0)
    assert sorted(sparse.tolist()) == list(range(600))
    assert float((a * b[sparse]).sum()) == pytest.approx(float((a * b[dense]).sum()), rel=1e-5)


def test_matching_exists_even_when_all_atoms_have_the_same_rivals() -> None:
    a, b = torch.ones(100, 4) / 2, F.normalize(torch.ones(100, 4) + 0.01 * atoms(100, 4), dim=1)
    assert sorted(match(a, b, dense=0).tolist()) == list(range(100))


@pytest.mark.parametrize("wrong", [[], [torch.ones(3, 2)], [torch.ones(3, 2), torch.ones(4, 2)]])
def test_what_cannot_be_compared_is_one_sentence(wrong: list[torch.Tensor]) -> None:
    with pytest.raises(BlindspotError, match="two or more dictionaries of one shape"):
        stability(wrong)
