import pytest
import torch

from engine.samplers.robust import RobustScore, View


@pytest.fixture
def images():
    return torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))


def test_a_view_moves_the_picture_and_repeats_its_edge(images):
    seen = View(down=0.1, right=-0.05).of(images)
    assert seen.shape == images.shape
    assert torch.equal(seen[:, :, 2:, :-1], images[:, :, :-2, 1:])
    assert torch.equal(seen[:, :, 0, :-1], images[:, :, 0, 1:])
    assert torch.equal(View(mirrored=True).of(images), images.flip(-1)) and torch.equal(View().of(images), images)


def test_a_blur_keeps_the_mean_and_kills_the_finest_pattern(images):
    checks = ((torch.arange(20)[:, None] + torch.arange(20)) % 2).float().expand(1, 3, 20, 20)
    assert View(blurred=True).of(checks)[..., 1:-1, 1:-1].var() < 1e-12
    torch.testing.assert_close(View(blurred=True).of(torch.full_like(images, 0.3)), torch.full_like(images, 0.3))


def test_the_score_is_the_mean_over_the_views(images):
    views = (View(), View(0.1), View(mirrored=True))

    def corner(pictures):
        return pictures[:, 0, 0, 0]

    expected = torch.stack([corner(view.of(images)) for view in views]).mean(dim=0)
    torch.testing.assert_close(RobustScore(corner, views)(images), expected)


def test_what_hangs_on_the_finest_detail_earns_less_than_what_is_broad():
    checks = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1.0).expand(1, 3, 16, 16)
    halves = torch.ones(1, 3, 16, 16)
    halves[..., 8:] = -1

    def likes(pattern):
        return RobustScore(lambda pictures: (pictures * pattern).mean(dim=(1, 2, 3)))(pattern).item()

    rows = halves.transpose(2, 3)
    assert likes(rows) > 0.7 > abs(likes(checks))


def test_it_has_a_gradient(images):
    variable = images.clone().requires_grad_()
    RobustScore(lambda pictures: pictures.mean(dim=(1, 2, 3)))(variable).sum().backward()
    assert variable.grad.isfinite().all() and (variable.grad.sum() > 0)
