import pytest
import torch

from engine.errors import BlindspotError
from engine.samplers.feature_visualization import RegularisedOptimisation, total_variation
from engine.samplers.fourier import pink
from tests.engine.samplers.peers import assert_batches_agree, assert_previews, redness


def test_total_variation_of_known_images():
    step = torch.zeros(1, 3, 4, 5)
    step[..., 3:] = 0.8
    assert total_variation(step).item() == pytest.approx(0.8 / 4)
    board = ((torch.arange(4)[:, None] + torch.arange(4)) % 2).float().expand(1, 3, 4, 4)
    assert total_variation(torch.cat([board, torch.full((1, 3, 4, 4), 0.3)])).tolist() == pytest.approx([2.0, 0.0])


def test_pink_coefficients_fall_as_one_over_the_frequency():
    scale = pink(16)
    assert scale[0, 4] / scale[0, 8] == pytest.approx(2.0) and scale[0, 0] == scale[0, 1]
    assert scale.square().mean().item() == pytest.approx(1.0)


def test_strength_buys_score_at_the_price_of_variation():
    def corner(images):
        return images[:, 0, :4, :4].mean(dim=(1, 2))

    def drawn(strength):
        return RegularisedOptimisation(16, steps=150, strength=strength).sample(corner, 2)

    flat, some, much = drawn(0.0), drawn(1.0), drawn(20.0)
    assert total_variation(flat.images).max() < 0.01
    assert (some.scores > flat.scores).all() and (much.scores > some.scores).all()
    assert (total_variation(much.images) > total_variation(flat.images)).all()


def test_same_seed_same_image_in_any_batch_with_previews():
    assert_batches_agree(RegularisedOptimisation(16, steps=10, strength=3.0, variation=0.1), redness)
    assert_previews(RegularisedOptimisation(16, steps=5), 5)


@pytest.mark.filterwarnings("ignore")
def test_leaving_the_real_numbers_is_one_sentence():
    with pytest.raises(BlindspotError, match=r"Sample 1 became infinite at step 1 of 5: lower the strength"):
        RegularisedOptimisation(16, steps=5).sample(lambda images: redness(images) / 0, 2)


def test_senseless_orders_are_refused():
    with pytest.raises(BlindspotError, match="ask for at least 1"):
        RegularisedOptimisation(16).sample(redness, 0)
    with pytest.raises(BlindspotError, match="finite numbers, not inf"):
        RegularisedOptimisation(16, strength=float("inf")).sample(redness, 1)
