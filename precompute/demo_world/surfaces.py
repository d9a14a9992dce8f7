"""The surfaces of the demo world: large textures painted once per process, cropped anew for every scene.

A texture is painted at ``TEXTURE_SIDE`` pixels per image side and spans several image sides, so that a crop with a
random offset and scale gives each scene its own piece of the same table. Everything is low in frequency: nothing here
is finer than about two pixels of a 64-pixel scene, so it survives a 4x-downsampling autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

TEXTURE_SIDE = 128
"""Pixels of a texture per side of an image."""

Paint = Callable[[np.random.Generator], Image.Image]


def background(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """Crop a piece of the surface `name`, with its own offset, scale and brightness.

    Returns float32 `[size, size, 3]` in 0..255.
    """
    picture = texture(name)
    side = TEXTURE_SIDE * rng.uniform(0.88, 1.14)
    left = rng.uniform(0, picture.width - side)
    top = rng.uniform(0, picture.height - side)
    crop = picture.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(crop, np.float32) * (rng.uniform(0.95, 1.04) * daylight(size))


@lru_cache
def daylight(size: int) -> np.ndarray:
    """A gentle fall of light from the upper left, float32 `[size, size, 1]` around 1."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    return (1 - 0.03 * (ramp[:, None] + ramp[None, :]))[..., None]


@lru_cache
def texture(name: str) -> Image.Image:
    """The whole surface `name`, RGB, painted on first use from a fixed seed."""
    return PAINTERS[name](np.random.default_rng([64, *name.encode()]))


def smooth_noise(rng: np.random.Generator, width: int, height: int, columns: int, rows: int) -> np.ndarray:
    """Smooth noise of about unit range with `columns` x `rows` bumps, float32 `[height, width]`."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def _picture(pixels: np.ndarray, blur: float = 0.0) -> Image.Image:
    """An RGB image from float `[height, width, 3]` in 0..255, softened by `blur` pixels."""
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(blur)) if blur else image


def wooden_table(rng: np.random.Generator) -> Image.Image:
    """Honey-coloured planks with wide, wavering bands of grain."""
    side, plank = 6 * TEXTURE_SIDE, 48
    y = np.arange(side, dtype=np.float32)[:, None]
    board = (y // plank).astype(int)[:, 0]
    tint = rng.uniform(-1, 1, board.max() + 1).astype(np.float32)[board][:, None]
    waver = smooth_noise(rng, side, side, 14, 40)
    grain = np.sin((y + 9 * waver + 31 * tint) * 2 * np.pi / 11) * (0.6 + 0.4 * smooth_noise(rng, side, side, 10, 60))
    streak = smooth_noise(rng, side, side, 8, 110)
    light = 1 + 0.045 * tint + 0.075 * grain + 0.06 * streak
    to_seam = np.minimum(y % plank, plank - y % plank)
    light = light * (1 - 0.34 * np.exp(-((to_seam / 1.7) ** 2)))
    return _picture(np.array([205, 150, 96], np.float32) * light[..., None] ** np.array([0.9, 1.05, 1.2]), 0.6)


def grass(rng: np.random.Generator) -> Image.Image:
    """A meadow of plump blades over soft patches of light and shade."""
    side = 6 * TEXTURE_SIDE
    patches = smooth_noise(rng, side, side, 30, 30)
    image = _picture(np.array([112, 164, 66], np.float32) * (1 + 0.09 * patches)[..., None])
    pen = ImageDraw.Draw(image)
    blades = np.array([(92, 146, 56), (126, 178, 72), (148, 196, 86), (104, 158, 62), (164, 206, 100)])
    for row in np.linspace(-10, side + 20, 100):
        for column in range(0, side, 9):
            x, y = column + rng.uniform(-5, 5), row + rng.uniform(-5, 5)
            lean, height, width = rng.uniform(-6, 6), rng.uniform(11, 19), rng.uniform(2.0, 3.2)
            colour = blades[rng.choice(5, p=(0.28, 0.26, 0.16, 0.22, 0.08))] + rng.integers(-5, 6)
            middle = (x + lean * 0.35, y - height * 0.5)
            outline = [(x - width, y), (middle[0] - width * 0.8, middle[1]), (x + lean, y - height)]
            pen.polygon([*outline, (middle[0] + width * 0.8, middle[1]), (x + width, y)], tuple(int(c) for c in colour))
    return image.filter(ImageFilter.GaussianBlur(1.1))


def brick_wall(rng: np.random.Generator) -> Image.Image:
    """Rows of fired-clay bricks in running bond, pale mortar between them."""
    side, width, height, joint = 6 * TEXTURE_SIDE, 48, 22, 4
    image = Image.new("RGB", (side, side), (214, 196, 180))
    pen = ImageDraw.Draw(image)
    clay = np.array([(172, 92, 72), (184, 104, 80), (160, 84, 68), (192, 116, 90)])
    for row in range(side // height + 1):
        for column in range(-1, side // width + 1):
            left, top = column * width + (row % 2) * width // 2, row * height
            colour = clay[rng.integers(4)] + rng.integers(-6, 7)
            box = (left, top, left + width - joint, top + height - joint)
            pen.rounded_rectangle(box, 3, tuple(int(c * 0.86) for c in colour))
            pen.rounded_rectangle((*box[:2], box[2] - 1, box[3] - 3), 3, tuple(int(c) for c in colour))
    stain = 1 + 0.05 * smooth_noise(rng, side, side, 40, 40)
    return _picture(np.asarray(image, np.float32) * stain[..., None], 0.8)


def sky(rng: np.random.Generator) -> Image.Image:
    """A summer sky paling towards the horizon, with a few round clouds."""
    width, height = 8 * TEXTURE_SIDE, int(1.4 * TEXTURE_SIDE)
    depth = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    blue = (1 - depth) * np.array([104, 172, 230]) + depth * np.array([206, 232, 246])
    clouds = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(clouds)
    for start in range(0, width, 92):
        x, y, scale = start + rng.uniform(0, 40), rng.uniform(0.5, 0.95) * height, rng.uniform(0.8, 1.3)
        for dx, lift, radius in ((-19, 2, 8), (-8, 7, 12), (7, 9, 14), (20, 3, 9)):
            cx, cy, r = x + dx * scale, y - lift * scale, radius * scale
            pen.ellipse((cx - r, cy - r, cx + r, cy + r), 225)
        pen.rectangle((x - 34 * scale, y + 3 * scale, x + 34 * scale, y + 26 * scale), 0)
    cover = np.asarray(clouds.filter(ImageFilter.GaussianBlur(2.2)), np.float32)[..., None] / 255
    return _picture(np.broadcast_to(blue, (height, width, 3)) * (1 - cover) + np.array([252, 252, 250]) * cover)


def paper(rng: np.random.Generator) -> Image.Image:
    """A white page; lines of text are soft grey bars, a bar to a word."""
    width, height, line = int(1.4 * TEXTURE_SIDE), 8 * TEXTURE_SIDE, 15
    image = Image.new("RGB", (width, height), (250, 248, 242))
    pen = ImageDraw.Draw(image)
    for row, top in enumerate(range(5, height, line)):
        x, stop = 16.0, width - rng.uniform(10, 24)
        if row % 6 == 5:
            stop = width * rng.uniform(0.4, 0.7)
        while x < stop - 8:
            end = min(x + rng.uniform(14, 38), stop)
            pen.rounded_rectangle((x, top, end, top + 5), 2, (182, 184, 191))
            x = end + 6
    return image.filter(ImageFilter.GaussianBlur(0.8))


def checked_cloth(rng: np.random.Generator) -> Image.Image:
    """Rose-and-cream gingham with the faintest folds."""
    side, period = 6 * TEXTURE_SIDE, 40
    stripe = 0.5 + 0.5 * np.tanh(4.5 * np.sin(np.arange(side, dtype=np.float32) * 2 * np.pi / period))
    weave = (0.5 * (stripe[:, None] + stripe[None, :]))[..., None]
    folds = 1 + 0.03 * smooth_noise(rng, side, side, 12, 12)
    return _picture(
        (np.array([250, 244, 234]) * (1 - weave) + np.array([206, 92, 100]) * weave) * folds[..., None], 0.5
    )


PAINTERS: dict[str, Paint] = {
    "wooden table": wooden_table,
    "grass": grass,
    "brick wall": brick_wall,
    "sky": sky,
    "paper": paper,
    "checked cloth": checked_cloth,
}
