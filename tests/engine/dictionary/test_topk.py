"""Codes, decoding and gradients shared by all dictionaries, on the simplest one."""

import pytest
import torch

from engine.dictionary.encoding import CHUNK_ENTRIES, Codes, combine
from engine.dictionary.topk import TopK
from engine.errors import BlindspotError


@pytest.fixture
def dictionary() -> TopK:
    torch.manual_seed(0)
    dictionary = TopK(dim=6, concepts=10, sparsity=3)
    with torch.no_grad():
        dictionary.encoder.bias.normal_()
        dictionary.encoder.weight.normal_()
        dictionary.mean.normal_()
        dictionary.scale.fill_(0.5)
    return dictionary


def dense(codes: Codes, concepts: int) -> torch.Tensor:
    return torch.zeros(len(codes.values), concepts).scatter_add(1, codes.indices, codes.values)


def test_codes_are_the_largest_rectified_activations(dictionary: TopK) -> None:
    x = torch.randn(50, 6)
    activations = torch.relu((x - dictionary.mean) * 0.5 @ dictionary.encoder.weight.T + dictionary.encoder.bias)
    expected = activations.sort(dim=-1, descending=True).values[:, :3]
    codes = dictionary.encode(x)
    assert codes.indices.dtype == torch.int64
    torch.testing.assert_close(codes.values, expected)
    torch.testing.assert_close(activations.gather(1, codes.indices), codes.values)


def test_no_more_than_the_active_concepts_are_positive(dictionary: TopK) -> None:
    with torch.no_grad():
        dictionary.encoder.bias.fill_(-100)
    x = torch.randn(4, 6)
    codes = dictionary.encode(x)
    assert codes.values.eq(0).all()
    torch.testing.assert_close(dictionary.decode(codes), dictionary.mean.expand(4, 6))


def test_sparse_decoding_and_its_gradients_equal_dense_ones(dictionary: TopK) -> None:
    x = torch.randn(20, 6, requires_grad=True)
    inputs = [x, *dictionary.parameters()]
    target = torch.randn(20, 6)
    sparse = dictionary.reconstruct(x)
    codes = dictionary.encode(x)
    full = dense(codes, 10) @ dictionary.atoms() / dictionary.scale + dictionary.mean
    torch.testing.assert_close(sparse, full)
    ours = torch.autograd.grad((sparse - target).square().sum(), inputs)
    theirs = torch.autograd.grad((full - target).square().sum(), inputs)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_sparse_decoding_passes_gradcheck() -> None:
    indices = torch.randint(5, (4, 2))
    values, atoms = torch.rand(4, 2).double().requires_grad_(), torch.randn(5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v, a: combine(Codes(indices, v), a), (values, atoms))


def test_preactivations_of_some_concepts(dictionary: TopK) -> None:
    x = torch.randn(8, 6, requires_grad=True)
    chosen = torch.tensor([7, 2])
    every = dictionary.encoder(dictionary.standardise(x))
    torch.testing.assert_close(dictionary.preactivate(x, chosen), every[:, chosen])
    dictionary.preactivate(x, chosen).sum().backward()
    torch.testing.assert_close(x.grad, (dictionary.encoder.weight[chosen].sum(0) * 0.5).expand(8, 6))


def test_chunked_encoding_changes_nothing(dictionary: TopK, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(33, 6)
    with torch.no_grad():
        whole = dictionary.encode(x)
        monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 40)
        chunked = dictionary.encode(x)
    assert torch.equal(whole.indices, chunked.indices)
    torch.testing.assert_close(whole.values, chunked.values)


def test_constrained_atoms_have_unit_norm(dictionary: TopK) -> None:
    with torch.no_grad():
        dictionary.decoder.mul_(torch.rand(10, 1) + 0.1)
    dictionary.constrain()
    torch.testing.assert_close(dictionary.atoms().norm(dim=-1), torch.ones(10))


def test_more_concepts_than_tokens_leave_no_zero_atom() -> None:
    dictionary = TopK(dim=6, concepts=10, sparsity=3)
    tokens = torch.cat([torch.zeros(1, 6), torch.eye(6)[:2]])
    dictionary.initialise(tokens, torch.Generator().manual_seed(0))
    torch.testing.assert_close(dictionary.atoms().norm(dim=-1), torch.ones(10))


@pytest.mark.parametrize("sizes", [(0, 4, 1), (4, 0, 1), (4, 4, 0), (4, 4, 5)])
def test_impossible_sizes_are_one_sentence(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(BlindspotError, match="A dictionary cannot have"):
        TopK(*sizes)


def test_tokens_of_another_width_are_one_sentence(dictionary: TopK) -> None:
    for call in (dictionary.encode, lambda x: dictionary.preactivate(x, torch.tensor([0]))):
        with pytest.raises(BlindspotError, match=r"shape \[N, 6\], not \[2, 5\]"):
            call(torch.randn(2, 5))
