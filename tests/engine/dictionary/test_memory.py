"""A dictionary that cannot be held is refused before it is allocated."""

import pytest
import torch

from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.fitting import COPIES, LATE_COPIES, fit, training_bytes
from engine.dictionary.spec import DictionarySpec
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from engine.errors import BlindspotError


@pytest.mark.parametrize(
    ("made", "settings"),
    [
        (TopK(8, 50, 2), {}),
        (RelaxedArchetypal(8, 50, 2, candidates=30), {"candidates": 30}),
        (Transcoder(8, 50, 2, grid=(2, 2), out_dim=6), {"out_dim": 6}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_what_is_needed_is_what_parameters_take(made: torch.nn.Module, settings: dict) -> None:
    late = sum(block.numel() for group in made.parameter_groups() if group.get("late") for block in group["params"])
    entries = sum(parameter.numel() for parameter in made.parameters() if parameter.ndim == 2)
    exact = 4 * (COPIES * (entries - late) + LATE_COPIES * late)
    assert training_bytes(type(made), 8, 50, settings) == exact


def test_more_concepts_than_memory_are_one_sentence() -> None:
    tokens = torch.randn(40, 4)
    with pytest.raises(BlindspotError, match=r"archetypal dictionary of 9,000,000 concepts needs [\d,.]+ GB to train"):
        fit(tokens, DictionarySpec(kind="rasae", concepts=9_000_000))
    with pytest.raises(BlindspotError, match=r"ask for fewer concepts\."):
        fit(tokens, DictionarySpec(kind="topk", concepts=10**12))
