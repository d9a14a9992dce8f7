"""The training loop: resuming changes nothing, snapshots and averages are what they say."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from precompute.demo_world.optimisation import Budget, optimise

BUDGET = Budget(steps=250, batch=4, learning_rate=0.05, averaging=0.9)


def trained(folder, budget=BUDGET, **settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step, generator):
        rows = torch.randn(8, 3, generator=generator)
        return (model(rows) - rows.sum(dim=1, keepdim=True)).square().mean()

    return optimise(model, loss, budget, folder / "line.pt", say=lambda line: None, **settings)


def test_training_learns(tmp_path):
    weights = trained(tmp_path).weight
    assert torch.allclose(weights, torch.ones(1, 3), atol=0.05)


def test_a_resumed_run_ends_with_the_same_bits(tmp_path):
    class Killed(Exception):
        pass

    whole = trained(tmp_path / "whole")

    def die_after_two_hundred(line):
        if " 200/" in line:
            raise Killed

    # The checkpoint of step 100 is on disk when the run dies at 200, before that one is written.
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(step, generator):
        rows = torch.randn(8, 3, generator=generator)
        return (model(rows) - rows.sum(dim=1, keepdim=True)).square().mean()

    with pytest.raises(Killed):
        optimise(model, loss, BUDGET, tmp_path / "parts" / "line.pt", say=die_after_two_hundred)
    resumed = trained(tmp_path / "parts")
    assert torch.equal(resumed.weight, whole.weight)


def test_the_rate_rises_then_falls_to_a_hundredth():
    budget = replace(BUDGET, steps=1000, warmup=0.1)
    rates = [budget.rate(step) for step in range(1001)]
    assert max(rates) == budget.learning_rate and rates.index(max(rates)) <= 100
    assert rates[-1] == budget.learning_rate * 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[100:]))


def test_snapshots_are_kept(tmp_path):
    trained(tmp_path, snapshots=(60,))
    assert set(torch.load(tmp_path / "line.60.pt", weights_only=True)) == {"weight", "bias"}
