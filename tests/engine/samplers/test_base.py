import pytest
import torch

from engine.jobs import Cancelled
from engine.samplers.base import StepEvent, announce, sample_generators


def first_numbers(seed, n):
    return [torch.rand((), generator=generator).item() for generator in sample_generators(seed, n)]


def test_sample_i_has_the_same_source_in_any_batch():
    assert first_numbers(7, 4)[:2] == first_numbers(7, 2)


def test_no_two_samples_of_any_seeds_share_a_source():
    numbers = [number for seed in range(20) for number in first_numbers(seed, 20)]
    assert len(set(numbers)) == 400


def test_only_false_cancels():
    event = StepEvent(1, 2, torch.zeros(1), torch.zeros(1, 3, 2, 2))
    for answer in (None, True, 0):
        announce(lambda _, answer=answer: answer, event)
    announce(None, event)
    with pytest.raises(Cancelled):
        announce(lambda _: False, event)
