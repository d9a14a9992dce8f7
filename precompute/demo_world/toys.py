"""The toys of the demo world: colours and their tones, a brush, one light that rounds every toy, and the toys.

Each kind is a few bold shapes in a frame of its own, a square from -1 to 1 in both directions with y pointing down;
`Brush` carries that frame onto a supersampled tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 50, 52),
    "orange": (242, 132, 36),
    "yellow": (250, 208, 62),
    "green": (30, 146, 88),
    "blue": (46, 100, 206),
    "purple": (136, 74, 188),
    "white": (244, 242, 237),
    "black": (52, 50, 60),
}
INK = (44, 38, 46)

RGB = tuple[int, int, int]
SHADOW_TONES: dict[str, tuple[RGB, float]] = {
    "white": ((150, 150, 164), 0.5),
    "yellow": ((186, 84, 8), 0.4),
    "orange": ((150, 30, 16), 0.36),
}
"""What a pale or warm colour darkens towards, and how far, so that it stays itself and does not turn to mud."""
Points = np.ndarray
"""A closed outline, float `[n, 2]` (x, y) in the thing's frame."""


def mix(colour: RGB, other: RGB, share: float) -> RGB:
    """`colour` with `share` of `other` mixed in."""
    red, green, blue = (round((1 - share) * c + share * o) for c, o in zip(colour, other, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Shades:
    """The named colour of a thing and the three tones its painting needs beside it."""

    name: str
    base: RGB

    @property
    def dark(self) -> RGB:
        """A shadow tone, still read as the same colour."""
        return mix(self.base, *SHADOW_TONES.get(self.name, ((34, 22, 56), 0.32)))

    @property
    def light(self) -> RGB:
        """A sunlit tone."""
        return mix(self.base, (255, 255, 250), 0.24 if self.name == "black" else 0.36)

    @property
    def accent(self) -> RGB:
        """A tone that stands out on the thing: cream, or a soft grey where the thing is pale itself."""
        return (176, 178, 190) if self.name == "white" else (252, 244, 224)


class Brush:
    """Paints outlines given in a thing's frame onto a tile, turned by `angle` radians and mirrored if `flip`."""

    def __init__(self, tile: Image.Image, centre: tuple[float, float], radius: float, angle: float, flip: bool) -> None:
        self.pen = ImageDraw.Draw(tile)
        cos, sin = radius * np.cos(angle), radius * np.sin(angle)
        sign = -1.0 if flip else 1.0
        self.frame = np.array([[sign * cos, sign * sin], [-sin, cos]])
        self.centre = np.array(centre)

    def shape(self, outline: Points | Sequence[tuple[float, float]], colour: RGB | None) -> None:
        """Fill an outline; `None` cuts it out of the thing."""
        placed = np.asarray(outline, float) @ self.frame + self.centre
        self.pen.polygon(placed.ravel().tolist(), (*INK, 0) if colour is None else (*colour, 255))

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: RGB | None, tilt: float = 0.0) -> None:
        """Fill an ellipse with half-axes `rx`, `ry`, turned by `tilt` radians."""
        self.shape(ellipse(x, y, rx, ry, tilt), colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: RGB, corner: float = 0.1) -> None:
        """Fill a rectangle with rounded corners of radius `corner`."""
        self.shape(box(left, top, right, bottom, corner), colour)


TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
CIRCLE = np.stack([np.cos(TURN), np.sin(TURN)], axis=1)


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Points:
    """Outline of an ellipse."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    return (CIRCLE * (rx, ry)) @ np.array([[cos, sin], [-sin, cos]]) + (x, y)


def box(left: float, top: float, right: float, bottom: float, corner: float) -> Points:
    """Outline of a rectangle with rounded corners."""
    xs = np.repeat([right - corner, left + corner, left + corner, right - corner], 10)
    ys = np.repeat([bottom - corner, top + corner], 20)
    return np.stack([xs, ys], axis=1) + corner * CIRCLE


def smooth(corners: Points | Sequence[tuple[float, float]], rounds: int = 3) -> Points:
    """Round a polygon's corners by Chaikin's corner cutting."""
    outline = np.asarray(corners, float)
    for _ in range(rounds):
        following = np.roll(outline, -1, axis=0)
        outline = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return outline


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Points:
    """An open arc of an ellipse from `start` to `stop`, in turns, clockwise from the right."""
    angle = np.linspace(start, stop, 16) * 2 * np.pi
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def light(pixels: np.ndarray, alpha: Image.Image, side: float) -> np.ndarray:
    """Round a flat painting off: brighter where its outline faces the upper left, darker where it faces away.

    `pixels` is float32 `[h, w, 3]`, `alpha` its coverage, `side` its size in pixels; returns `[h, w, 3]` in 0..255.
    """
    height = np.asarray(alpha.filter(ImageFilter.GaussianBlur(0.05 * side)), np.float32) / 255
    slope = np.pad(height, 1, mode="edge")
    slope = (slope[2:, 2:] - slope[:-2, :-2]) * side * 0.05
    shine = np.clip(slope, 0, 1)[..., None] * 0.55
    shade = np.clip(-slope, 0, 1)[..., None] * 0.6
    lit = pixels + shine * (255 - pixels)
    return lit * (1 - shade * np.array([0.62, 0.66, 0.5], np.float32))


SUPERSAMPLING = 4
"""Side of the square of tile pixels averaged into one pixel of the image."""
CREAM, BARK, STRAW = (252, 244, 224), (128, 82, 50), (238, 204, 132)
LEAF, GLASS, TYRE, SILVER = (84, 160, 62), (190, 226, 240), (50, 48, 56), (214, 214, 218)


def disc(brush: Brush, shades: Shades) -> None:
    """A record: sheen, grooves, a pale label and a hole right through."""
    brush.ellipse(0, 0, 0.96, 0.96, shades.base)
    sheen = mix(shades.base, shades.light, 0.75)
    for start in (0.58, 0.08):
        brush.shape(np.vstack([[(0, 0)], arc(0, 0, 0.9, 0.9, start, start + 0.14)]), sheen)
    for radius in (0.82, 0.63):
        ring = np.vstack([arc(0, 0, radius, radius, 0, 1), arc(0, 0, radius - 0.07, radius - 0.07, 1, 0)])
        brush.shape(ring, shades.dark)
    brush.ellipse(0, 0, 0.44, 0.44, shades.dark)
    brush.ellipse(0, 0, 0.39, 0.39, shades.accent)
    brush.ellipse(0, 0, 0.19, 0.19, None)


def bird_feeder(brush: Brush, shades: Shades) -> None:
    """A little hanging house with a wide roof, a round door and a tray of seed."""
    brush.shape(np.vstack([arc(0, -0.8, 0.19, 0.19, 0, 1), arc(0, -0.8, 0.09, 0.09, 1, 0)]), BARK)
    brush.shape([(-0.56, -0.2), (0.56, -0.2), (0.48, 0.66), (-0.48, 0.66)], mix(shades.base, shades.light, 0.7))
    brush.ellipse(0, 0.3, 0.28, 0.29, INK)
    brush.shape(arc(0, 0.64, 0.42, 0.2, 0.5, 1), STRAW)
    brush.shape(smooth([(0, -0.86), (0.98, -0.16), (0.86, 0), (-0.86, 0), (-0.98, -0.16)], 2), shades.dark)
    brush.shape(smooth([(0, -0.84), (0.96, -0.18), (0.84, -0.1), (-0.84, -0.1), (-0.96, -0.18)], 2), shades.base)
    brush.box(-0.82, 0.62, 0.82, 0.88, BARK, 0.08)
    brush.box(-0.82, 0.62, 0.82, 0.72, mix(BARK, CREAM, 0.3), 0.05)


def frond(tip: tuple[float, float], sag: float, width: float) -> Points:
    """A leaf from the crown at (0, -0.36) to `tip`, arching up by `sag`."""
    root, end = np.array([0.05, -0.38]), np.array(tip)
    t = np.linspace(0, 1, 12)[:, None]
    spine = root + t * (end - root) - np.array([0, 1]) * sag * 4 * t * (1 - t)
    across = np.array([-(end - root)[1], (end - root)[0]]) / np.linalg.norm(end - root)
    half = width * np.sin(np.pi * np.clip(t * 0.85 + 0.12, 0, 1)) ** 0.8
    return np.vstack([spine + across * half, (spine - across * half)[::-1]])


def palm_tree(brush: Brush, shades: Shades) -> None:
    """A leaning ringed trunk on a mound of sand, with a crown of fronds."""
    brush.shape(arc(0, 0.94, 0.62, 0.26, 0.5, 1), STRAW)
    t = np.linspace(0, 1, 12)
    lean, rise = 0.3 * (1 - t) ** 2 * -1 + 0.06, 0.86 - 1.24 * t
    half = 0.15 - 0.05 * t
    brush.shape(np.vstack([np.stack([lean - half, rise], 1), np.stack([lean + half, rise], 1)[::-1]]), BARK)
    for step in (2, 4, 6, 8):
        brush.ellipse(lean[step], rise[step], half[step], 0.04, mix(BARK, CREAM, 0.35))
    for tip, sag, width in (((-0.62, 0.2), 0.34, 0.15), ((0.7, 0.2), 0.34, 0.15)):
        brush.shape(frond(tip, sag, width), shades.dark)
    for tip, sag, width in (((-0.97, -0.2), 0.32, 0.17), ((0.98, -0.2), 0.32, 0.17)):
        brush.shape(frond(tip, sag, width), shades.base)
    for tip, sag, width in (((-0.62, -0.78), 0.1, 0.17), ((0.68, -0.8), 0.1, 0.17), ((0.04, -0.98), 0.0, 0.15)):
        brush.shape(frond(tip, sag, width), mix(shades.base, shades.light, 0.55))
    for x in (-0.07, 0.16):
        brush.ellipse(x, -0.27, 0.12, 0.12, mix(BARK, INK, 0.35))


def star(brush: Brush, shades: Shades) -> None:
    """A plump five-pointed star with faceted arms."""
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.06, 0.5)
    tips = np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.07], axis=1)
    brush.shape(smooth(tips, 1), shades.base)
    centre = (0.0, 0.07)
    for point in range(0, 10, 2):
        tip = 0.92 * tips[point]
        brush.shape([centre, tip, tips[(point + 1) % 10]], mix(shades.base, shades.dark, 0.5))
        brush.shape([centre, tip, tips[point - 1]], mix(shades.base, shades.light, 0.4))


def heart(brush: Brush, shades: Shades) -> None:
    """A full heart with a glint on its left lobe."""
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    outline = np.stack([x / 16.6, (y - 2.5) / 15.6], axis=1)
    brush.shape(outline, mix(shades.base, shades.dark, 0.4))
    brush.shape(outline * 0.88 + (-0.035, -0.045), shades.base)
    brush.ellipse(-0.46, -0.44, 0.2, 0.13, mix(shades.light, (255, 255, 255), 0.35), -0.7)


def apple(brush: Brush, shades: Shades) -> None:
    """A round-shouldered apple with a stem and one leaf."""
    body = [(0, -0.42), (0.3, -0.62), (0.78, -0.56), (0.98, -0.04), (0.82, 0.56), (0.42, 1.02), (0, 0.86)]
    outline = smooth([*body, (-0.42, 1.02), (-0.82, 0.56), (-0.98, -0.04), (-0.78, -0.56), (-0.3, -0.62)])
    brush.shape(outline, mix(shades.base, shades.dark, 0.4))
    brush.shape((outline - (0, 0.2)) * (0.9, 0.91) + (-0.04, 0.16), shades.base)
    brush.ellipse(0, -0.42, 0.24, 0.09, shades.dark)
    brush.shape(
        smooth([(-0.07, -0.4), (-0.06, -0.72), (0.06, -0.98), (0.2, -0.94), (0.09, -0.7), (0.08, -0.4)], 2), BARK
    )
    brush.shape(smooth([(0.1, -0.6), (0.26, -0.96), (0.72, -0.98), (0.78, -0.9), (0.56, -0.6)]), LEAF)
    brush.ellipse(-0.5, -0.12, 0.15, 0.25, mix(shades.light, (255, 255, 255), 0.3), 0.35)


def fish(brush: Brush, shades: Shades) -> None:
    """A round toy fish facing left: fan tail, fins, a big eye."""
    brush.shape(smooth([(0.42, 0), (0.86, -0.56), (1.06, -0.5), (0.88, 0), (1.06, 0.5), (0.86, 0.56)], 2), shades.dark)
    brush.shape(smooth([(-0.36, -0.4), (-0.06, -0.86), (0.44, -0.74), (0.36, -0.3)], 2), shades.dark)
    brush.shape(smooth([(-0.2, 0.4), (0.06, 0.84), (0.36, 0.7), (0.26, 0.3)], 2), shades.dark)
    back = [(-1.04, 0.02), (-0.74, -0.46), (-0.16, -0.62), (0.4, -0.36)]
    brush.shape(smooth([*back, (0.74, 0), (0.4, 0.36), (-0.16, 0.62), (-0.74, 0.48)]), shades.base)
    brush.shape(
        np.vstack([arc(-0.16, 0.06, 0.7, 0.46, 0.02, 0.48), arc(-0.16, 0.06, 0.7, 0.2, 0.48, 0.02)]), shades.light
    )
    brush.shape(np.vstack([arc(-0.5, 0, 0.32, 0.5, -0.17, 0.17), arc(-0.5, 0, 0.2, 0.46, 0.17, -0.17)]), shades.accent)
    brush.ellipse(-0.58, -0.14, 0.17, 0.17, (255, 255, 255))
    brush.ellipse(-0.61, -0.13, 0.1, 0.1, INK)


def flower(brush: Brush, shades: Shades) -> None:
    """A daisy on a short stem with two leaves."""
    brush.box(-0.075, 0.1, 0.075, 0.99, LEAF, 0.06)
    brush.shape(smooth([(0, 1.0), (0.1, 0.66), (0.72, 0.36), (0.66, 0.88)]), LEAF)
    brush.shape(smooth([(0, 1.0), (-0.1, 0.66), (-0.72, 0.36), (-0.66, 0.88)]), mix(LEAF, INK, 0.15))
    for petal in range(6):
        angle = np.pi / 3 * petal + 0.5
        x, y = 0.39 * np.cos(angle), 0.39 * np.sin(angle) - 0.3
        tone = shades.base if petal % 2 else mix(shades.base, shades.light, 0.5)
        brush.ellipse(x, y, 0.32, 0.255, tone, angle)
    centre = (150, 90, 44) if shades.name in ("yellow", "orange") else (250, 200, 58)
    brush.ellipse(0, -0.3, 0.24, 0.24, mix(centre, INK, 0.25))
    brush.ellipse(-0.02, -0.32, 0.2, 0.2, centre)


def car(brush: Brush, shades: Shades) -> None:
    """A bubble car facing left: round cabin, two windows, big wheels."""
    brush.shape(
        smooth([(-0.62, 0.1), (-0.5, -0.56), (-0.2, -0.7), (0.36, -0.7), (0.66, -0.5), (0.84, 0.1)], 2), shades.base
    )
    brush.shape(smooth([(-0.46, 0.0), (-0.38, -0.44), (-0.1, -0.54), (0.04, -0.52), (0.04, 0.0)], 1), GLASS)
    brush.shape(smooth([(0.18, 0.0), (0.18, -0.54), (0.4, -0.54), (0.54, -0.4), (0.62, 0.0)], 1), GLASS)
    brush.box(-0.98, -0.1, 0.98, 0.5, shades.base, 0.24)
    brush.box(-0.96, 0.26, 0.96, 0.5, shades.dark, 0.1)
    brush.ellipse(-0.84, 0.08, 0.12, 0.12, (255, 232, 140))
    for x in (-0.5, 0.52):
        brush.ellipse(x, 0.44, 0.3, 0.3, TYRE)
        brush.ellipse(x, 0.44, 0.14, 0.14, SILVER)


def cup(brush: Brush, shades: Shades) -> None:
    """A mug of cocoa with a fat handle and a band."""
    brush.shape(np.vstack([arc(0.5, 0.12, 0.5, 0.46, 0, 1), arc(0.5, 0.12, 0.26, 0.23, 1, 0)]), shades.dark)
    side = [(-0.84, -0.6), (0.56, -0.6), (0.5, 0.66)]
    brush.shape(np.vstack([side, arc(-0.14, 0.66, 0.64, 0.26, 0, 0.5)]), shades.base)
    band = np.vstack([arc(-0.14, 0.1, 0.675, 0.24, 0.5, 0), arc(-0.14, 0.36, 0.665, 0.24, 0, 0.5)])
    brush.shape(band, shades.accent)
    brush.ellipse(-0.14, -0.6, 0.7, 0.3, shades.light)
    brush.ellipse(-0.14, -0.58, 0.56, 0.2, (104, 62, 42))
    brush.ellipse(-0.2, -0.53, 0.34, 0.1, (142, 92, 62))


def book(brush: Brush, shades: Shades) -> None:
    """A closed book seen from above: spine, cover plate, the edges of its pages."""
    brush.box(-0.74, -0.9, 0.8, 0.96, shades.dark, 0.08)
    brush.box(-0.6, -0.8, 0.74, 0.88, CREAM, 0.03)
    brush.shape([(-0.6, 0.8), (0.74, 0.8), (0.74, 0.84), (-0.6, 0.84)], mix(CREAM, BARK, 0.35))
    brush.box(-0.78, -0.96, 0.66, 0.74, shades.base, 0.08)
    brush.box(-0.78, -0.96, -0.5, 0.74, mix(shades.base, shades.dark, 0.8), 0.08)
    brush.box(-0.3, -0.66, 0.46, -0.14, shades.accent, 0.06)
    brush.box(-0.14, -0.46, 0.3, -0.34, mix(shades.accent, INK, 0.5), 0.04)


def ball(brush: Brush, shades: Shades) -> None:
    """A glossy ball with one curved stripe."""
    for step in np.linspace(0, 1, 8):
        tone = mix(shades.dark, shades.base, min(1.0, 1.5 * step))
        brush.ellipse(-0.14 * step, -0.16 * step, 0.95 - 0.3 * step, 0.95 - 0.3 * step, tone)
    top, bottom = arc(0, -0.1, 0.95, 0.42, 0.5, 0), arc(0, 0.22, 0.93, 0.46, 0.0, 0.5)
    brush.shape(np.vstack([top, bottom]), shades.accent)
    brush.ellipse(-0.38, -0.5, 0.2, 0.13, (255, 255, 255), -0.7)


class Kind(NamedTuple):
    """How a kind is painted and how freely it may be posed."""

    paint: Callable[[Brush, Shades], None]
    turn: float
    """Largest rotation in radians."""
    mirrors: bool
    """Whether it may face either way."""


ARTISTS: dict[str, Kind] = {
    "disc": Kind(disc, 0.5, False),
    "bird feeder": Kind(bird_feeder, 0.07, False),
    "palm tree": Kind(palm_tree, 0.05, True),
    "star": Kind(star, 0.2, False),
    "heart": Kind(heart, 0.15, False),
    "apple": Kind(apple, 0.12, True),
    "fish": Kind(fish, 0.12, True),
    "flower": Kind(flower, 0.12, True),
    "car": Kind(car, 0.06, True),
    "cup": Kind(cup, 0.06, True),
    "book": Kind(book, 0.2, False),
    "ball": Kind(ball, 0.25, True),
}


class Sprite(NamedTuple):
    """A painted thing and where it goes."""

    pixels: np.ndarray
    """float32 `[h, w, 3]` in 0..255, lit."""
    coverage: np.ndarray
    """float32 `[h, w]` in 0..1."""
    left: int
    top: int


def paint_thing(kind: str, colour: str, centre: tuple[float, float], side: float, rng: np.random.Generator) -> Sprite:
    """Paint one thing: `centre` and `side` of its bounding square in pixels of the final image, pose from `rng`."""
    artist = ARTISTS[kind]
    angle, flip = rng.uniform(-artist.turn, artist.turn), artist.mirrors and rng.random() < 0.5
    shades = Shades(colour, COLOURS[colour])
    left, top = int(np.floor(centre[0] - side / 2)) - 2, int(np.floor(centre[1] - side / 2)) - 2
    pixels = int(np.ceil(side)) + 5
    # What lies under transparent pixels is averaged into the rim, which outlines the thing softly.
    tile = Image.new("RGBA", (pixels * SUPERSAMPLING,) * 2, (*shades.dark, 0))
    middle = ((centre[0] - left) * SUPERSAMPLING, (centre[1] - top) * SUPERSAMPLING)
    artist.paint(Brush(tile, middle, side * SUPERSAMPLING / 2 * 0.97, angle, flip), shades)
    small = tile.reduce(SUPERSAMPLING)
    channels = np.asarray(small, np.float32)
    return Sprite(light(channels[..., :3], small.getchannel("A"), side), channels[..., 3] / 255, left, top)
