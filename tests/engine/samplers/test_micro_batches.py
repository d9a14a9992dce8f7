import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.energy_dps import EnergyDPS
from engine.samplers.execution import MicroBatches
from tests.engine.priors.tiny import GaussianPrior


def fits(limit, function):
    """A function that asks the allocator for an exabyte when its batch is larger than a limit."""

    def wrapped(rows):
        if len(rows) > limit:
            torch.empty(1 << 60, dtype=torch.uint8)
        return function(rows)

    return wrapped


@pytest.mark.parametrize(("limit", "sizes"), [(8, [7]), (4, [4, 3]), (3, [2, 2, 2, 1]), (1, [1] * 7)])
def test_a_batch_is_halved_until_its_batches_fit(limit, sizes):
    batches = MicroBatches()
    parts = batches.map(fits(limit, torch.clone), torch.arange(7))
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(7))


@pytest.mark.parametrize(("limit", "sizes"), [(8, [4, 3]), (3, [2, 2, 2, 1]), (1, [1] * 7)])
def test_rows_of_two_groups_never_share_a_piece(limit, sizes):
    parts = MicroBatches(group=4).map(fits(limit, torch.clone), torch.arange(7))
    assert [len(part) for part in parts] == sizes
    assert torch.equal(torch.cat(parts), torch.arange(7))


def test_a_group_s_batches_do_not_depend_on_the_other_groups():
    batches = MicroBatches(group=6, size=4)
    assert [batches.map(len, torch.arange(6 * groups)) for groups in (1, 2)] == [[4, 2], [4, 2, 4, 2]]


def test_what_fitted_is_remembered():
    batches, seen = MicroBatches(), []
    batches.map(fits(2, torch.clone), torch.arange(8))
    batches.map(lambda rows: seen.append(len(rows)), torch.arange(5))
    assert seen == [2, 2, 1]


def test_a_sample_that_never_fits_is_one_sentence():
    with pytest.raises(BlindspotError, match="A single sample does not fit into the memory of cpu"):
        MicroBatches().map(fits(0, torch.clone), torch.arange(3))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        MicroBatches().map(lambda rows: rows @ torch.zeros(5, 5), torch.zeros(2, 3))


def test_a_sampler_goes_on_with_the_same_images_when_memory_runs_out():
    def redness(images):
        return (images[:, 0] - images[:, 1:].mean(dim=1)).mean(dim=(1, 2))

    sampler = EnergyDPS(GaussianPrior(), 8, strength=0.5, together=None)
    torch.testing.assert_close(sampler.sample(fits(2, redness), 5).images, sampler.sample(redness, 5).images)
