"""The same parameters give what overcomplete's autoencoders give: codes, reconstructions, gradients."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Codes, Dictionary
from engine.dictionary.topk import BatchTopK, TopK
from tests.engine.dictionary.published.oracles import oracle

DIM, CONCEPTS, SPARSITY, TOKENS = 12, 40, 4, 50
ENCODER = {"encoder.final_block.0.weight": "encoder.weight", "encoder.final_block.0.bias": "encoder.bias"}
DECODER = {"dictionary._weights": "decoder"}
MIXTURE = {
    "dictionary.W": "weights",
    "dictionary.Relax": "slack",
    "dictionary.multiplier": "log_multiplier",
    "dictionary.C": "points",
}


@pytest.fixture(scope="module")
def sae() -> ModuleType:
    return oracle("overcomplete", "sae")[0]


def randomised(dictionary: Dictionary) -> Dictionary:
    """The dictionary with random parameters that keep its constraints."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    dictionary.constrain()
    return dictionary


def pairs(sae: ModuleType) -> list[tuple[Dictionary, Any, dict[str, str]]]:
    """Ours, theirs, and the names of the same parameters in both."""
    archetypal = randomised(RelaxedArchetypal(DIM, CONCEPTS, SPARSITY, candidates=30, delta=0.5))
    theirs = sae.RATopKSAE(DIM, CONCEPTS, points=archetypal.points.clone(), top_k=SPARSITY, delta=0.5)
    free = randomised(TopK(DIM, CONCEPTS, SPARSITY))
    batch = randomised(BatchTopK(DIM, CONCEPTS, SPARSITY, max_active=CONCEPTS))
    return [
        (archetypal, theirs, ENCODER | MIXTURE),
        (free, sae.TopKSAE(DIM, CONCEPTS, top_k=SPARSITY), ENCODER | DECODER),
        (batch, sae.BatchTopKSAE(DIM, CONCEPTS, top_k=SPARSITY * TOKENS), ENCODER | DECODER),
    ]


def copied(ours: Dictionary, theirs: Any, names: dict[str, str]) -> Any:
    """Theirs with our parameters, in training mode."""
    state = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    with torch.no_grad():
        for name, own in names.items():
            state[name].copy_(ours.get_parameter(own) if own != "points" else ours.points)
    return theirs.train()


def dense(codes: Codes) -> Tensor:
    """Codes as a matrix [N, K]."""
    return torch.zeros(len(codes.indices), CONCEPTS).scatter_add(1, codes.indices, codes.values)


@pytest.mark.parametrize("number", range(3), ids=["archetypal", "topk", "batchtopk"])
def test_codes_reconstructions_and_gradients_are_overcompletes(sae: ModuleType, number: int) -> None:
    ours, theirs, names = pairs(sae)[number]
    copied(ours, theirs, names)
    x = torch.randn(TOKENS, DIM, generator=torch.Generator().manual_seed(1))
    _, their_codes, their_found = theirs(x)
    codes = ours.activate_batch(ours.features(x))
    found = ours.decode(codes)
    torch.testing.assert_close(dense(codes), their_codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(found, their_found, rtol=0, atol=1e-5)
    (x - found).square().mean().backward()
    (x - their_found).square().mean().backward()
    theirs_by_name = dict(theirs.named_parameters())
    for name, own in names.items():
        if own != "points":
            gradient = ours.get_parameter(own).grad
            assert gradient.abs().max() > 0
            torch.testing.assert_close(gradient, theirs_by_name[name].grad, rtol=0, atol=1e-4, msg=own)


@pytest.mark.parametrize("number", range(2), ids=["archetypal", "topk"])
def test_frozen_codes_are_overcompletes(sae: ModuleType, number: int) -> None:
    ours, theirs, names = pairs(sae)[number]
    copied(ours, theirs, names).eval()
    x = torch.randn(TOKENS, DIM)
    with torch.no_grad():
        torch.testing.assert_close(dense(ours.encode(x)), theirs.encode(x)[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.reconstruct(x), theirs(x)[2], rtol=0, atol=1e-5)


def test_a_threshold_does_what_overcompletes_does(sae: ModuleType) -> None:
    ours, theirs, names = pairs(sae)[2]
    copied(ours, theirs, names)
    with torch.no_grad():
        theirs.running_threshold = torch.tensor(0.7)
        ours.threshold.fill_(0.7)
        theirs.eval()
        x = torch.randn(TOKENS, DIM)
        torch.testing.assert_close(dense(ours.encode(x)), theirs.encode(x)[1], rtol=0, atol=1e-5)
