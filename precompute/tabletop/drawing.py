"""The illustrator's tools: colours and their tones, outlines, a brush, and the one light that rounds every toy.

Outlines live in a thing's own frame, a square from -1 to 1 in both directions with y pointing down; `Brush` carries
that frame onto a supersampled tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    return tuple(round((1 - share) * c + share * o) for c, o in zip(colour, other, strict=True))


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


def smooth(corners: Sequence[tuple[float, float]], rounds: int = 3) -> Points:
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
