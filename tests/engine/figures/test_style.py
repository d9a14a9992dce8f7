"""The delta scale must be readable without full colour vision (Machado et al. 2009, severity 1)."""

import numpy as np
import pytest

from engine.figures import style

NORMAL = np.eye(3)
VISION = {
    "normal": NORMAL,
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ @ np.ones(3)


def lab(rgb: np.ndarray, vision: str) -> np.ndarray:
    """CIE Lab [..., 3] of sRGB as seen with a kind of colour vision."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    t = seen @ XYZ.T / WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@pytest.mark.parametrize("vision", VISION)
def test_suppressed_and_exaggerated_never_look_alike(vision: str):
    blue, yellow = lab(style.sample_scale(style.DELTA_SCALE, np.array([0.0, 1.0])), vision)
    assert np.linalg.norm(blue - yellow) > 25
    near = lab(style.sample_scale(style.DELTA_SCALE, np.array([0.1, 0.9])), vision)
    assert np.linalg.norm(near[0] - near[1]) > 25


@pytest.mark.parametrize("vision", VISION)
def test_lightness_grows_from_the_middle_to_both_ends(vision: str):
    lightness = lab(style.sample_scale(style.DELTA_SCALE, np.linspace(0, 1, 41)), vision)[:, 0]
    assert (np.diff(lightness[20:]) > 0).all() and (np.diff(lightness[:21]) < 0).all()
    assert min(lightness[0], lightness[-1]) - lightness[20] > 30


@pytest.mark.parametrize("vision", VISION)
def test_the_frequency_scale_grows_in_lightness(vision: str):
    assert (np.diff(lab(style.sample_scale(style.AMOUNT_SCALE, np.linspace(0, 1, 30)), vision)[:, 0]) > 0).all()


def test_every_dot_is_visible_on_the_map_s_ground():
    ground = lab(style.to_rgb(style.NIGHT), "normal")
    dots = lab(style.sample_scale(style.DELTA_SCALE, np.linspace(0, 1, 41)), "normal")
    assert np.linalg.norm(dots - ground, axis=-1).min() > 20


def test_the_ends_are_the_named_colours():
    assert style.delta_colour(0) == style.SUPPRESSED
    assert style.delta_colour(0.5) == style.NEUTRAL
    assert style.delta_colour(1) == style.EXAGGERATED
