import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.samplers.candidates import choose, effective_size, systematic_resample

POPULATIONS = st.lists(st.floats(-50, 50), min_size=1, max_size=12)


@given(POPULATIONS, st.floats(0, 0.999))
def test_each_particle_gets_its_share_rounded_down_or_up(log_weights, offset):
    rows = torch.tensor([log_weights], dtype=torch.float64)
    ancestors = systematic_resample(rows, torch.tensor([offset], dtype=torch.float64))[0]
    copies = torch.bincount(ancestors, minlength=len(log_weights)).double()
    shares = rows.softmax(dim=1)[0] * len(log_weights)
    assert (copies >= shares.floor() - 1e-9).all() or (shares - shares.round()).abs().min() < 1e-6
    assert (copies <= shares.ceil() + 1e-9).all() or (shares - shares.round()).abs().min() < 1e-6


def test_resampling_is_unbiased_over_its_offset():
    rows = torch.tensor([[0.1, 0.2, 0.7]]).log().expand(3000, -1)
    offsets = (torch.arange(3000) + 0.5) / 3000
    shares = torch.bincount(systematic_resample(rows, offsets).flatten(), minlength=3) / 9000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=1e-3, rtol=0)
    single = torch.bincount(choose(rows, offsets), minlength=3) / 3000
    torch.testing.assert_close(single, torch.tensor([0.1, 0.2, 0.7]), atol=1e-3, rtol=0)


@given(POPULATIONS)
def test_the_effective_size_is_that_of_the_weights_whatever_their_scale(log_weights):
    rows = torch.tensor([log_weights], dtype=torch.float64)
    weights = rows.softmax(dim=1)
    torch.testing.assert_close(effective_size(rows + 1000), 1 / weights.square().sum(dim=1))


def test_equal_particles_are_worth_their_number_and_a_lone_one_is_worth_one():
    rows = torch.tensor([[5.0, 5.0, 5.0], [0.0, -math.inf, -math.inf]])
    torch.testing.assert_close(effective_size(rows), torch.tensor([3.0, 1.0]))
    assert systematic_resample(rows, torch.tensor([0.0, 0.999])).tolist() == [[0, 1, 2], [0, 0, 0]]
