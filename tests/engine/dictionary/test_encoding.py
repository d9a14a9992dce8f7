"""Sparse encoding equals its dense counterpart, forward and backward."""

import pytest
import torch
from torch import Tensor

from engine.dictionary.encoding import CHUNK_ENTRIES, Codes, gather_by_concept, top_codes

N, F_IN, K, WIDTH = 23, 6, 15, 4


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((N, F_IN), (K, F_IN), (K,))
    return tuple(torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)


def dense_codes(x: Tensor, weight: Tensor, bias: Tensor) -> Codes:
    values, indices = (x @ weight.T + bias).topk(WIDTH, dim=-1)
    return Codes(indices, values.relu())


def test_it_is_topk_of_the_dense_product(given: tuple[Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 7 * K)
    codes, expected = top_codes(*given, WIDTH), dense_codes(*given)
    assert torch.equal(codes.indices, expected.indices)
    torch.testing.assert_close(codes.values, expected.values)
    pull = torch.randn(N, WIDTH)
    found = torch.autograd.grad((codes.values * pull).sum(), given)
    wanted = torch.autograd.grad((expected.values * pull).sum(), given)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_only_decides_who_is_chosen(given: tuple[Tensor, ...]) -> None:
    x, weight, bias = (tensor.detach() for tensor in given)
    codes = top_codes(x, weight, bias, WIDTH, half=True)
    exact = (x @ weight.T + bias).gather(1, codes.indices).relu()
    torch.testing.assert_close(codes.values, exact)
    assert (codes.values[:, :-1] >= codes.values[:, 1:]).all()
    agreement = (codes.indices.sort().values == dense_codes(x, weight, bias).indices.sort().values).float().mean()
    assert agreement > 0.9


def test_rows_gathered_by_concept_are_the_transposed_product() -> None:
    indices, weights, rows = torch.randint(K, (N, WIDTH)), torch.rand(N, WIDTH), torch.randn(N, F_IN)
    dense = torch.zeros(N, K).scatter_add(1, indices, weights)
    torch.testing.assert_close(gather_by_concept(indices, weights, rows, K), dense.T @ rows)


def test_a_concept_that_nobody_chose_has_no_gradient(given: tuple[Tensor, ...]) -> None:
    x, weight, bias = given
    with torch.no_grad():
        bias[3] = -100
    top_codes(x, weight, bias, WIDTH).values.sum().backward()
    assert not weight.grad[3].any() and bias.grad[3] == 0
    assert weight.grad.any(dim=-1).sum() > K // 2
