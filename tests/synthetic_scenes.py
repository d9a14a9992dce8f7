"""The scenes of the synthetic atlas: one to three coloured shapes on a background, invented, captioned and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "ring", "star", "heart", "square", "triangle", "cross", "flower", "moon", "house")
COLOURS = {
    "red": "#e4572e",
    "orange": "#f3a712",
    "yellow": "#f6d743",
    "green": "#4f9d69",
    "teal": "#2a9d8f",
    "blue": "#3a6ea5",
    "violet": "#7b4b94",
    "pink": "#e77fb3",
}
BACKGROUNDS = {
    "paper": "#f7f3e8",
    "grass": "#b9d8a0",
    "sky": "#cfe6f5",
    "sand": "#ecd9b0",
    "night": "#2b2d42",
    "cloth": "#e8c7c8",
}


@dataclass(frozen=True)
class Thing:
    """A shape at (row, column) with a radius, all as shares of the picture; the seed chooses its finer concepts."""

    shape: int
    colour: int
    row: float
    column: float
    radius: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """A background and its things."""

    background: int
    things: tuple[Thing, ...]
    seed: int

    @property
    def caption(self) -> str:
        """The scene in plain English."""
        colours = tuple(COLOURS)
        named = [f"one {colours[thing.colour]} {SHAPES[thing.shape]}" for thing in self.things]
        return f"{' and '.join(named)} on {tuple(BACKGROUNDS)[self.background]}"


def random_scene(rng: np.random.Generator) -> Scene:
    """A scene with one to three things in different quarters."""
    spots = rng.permutation([(0.3, 0.3), (0.3, 0.72), (0.72, 0.3), (0.7, 0.7)])[: rng.integers(1, 4)]
    things = tuple(
        Thing(
            int(rng.integers(len(SHAPES))),
            int(rng.integers(len(COLOURS))),
            float(row + rng.normal(0, 0.03)),
            float(column + rng.normal(0, 0.03)),
            float(rng.uniform(0.14, 0.22)),
            int(rng.integers(1 << 31)),
        )
        for row, column in spots
    )
    return Scene(int(rng.integers(len(BACKGROUNDS))), things, int(rng.integers(1 << 31)))


def draw(scene: Scene, size: int = 96) -> Image.Image:
    """The scene as a picture, drawn at twice its size."""
    side = 2 * size
    picture = Image.new("RGB", (side, side), tuple(BACKGROUNDS.values())[scene.background])
    pen = ImageDraw.Draw(picture)
    for thing in scene.things:
        centre, radius = (thing.column * side, thing.row * side), thing.radius * side
        shadow = (centre[0] + 0.12 * radius, centre[1] + 0.16 * radius)
        _draw_shape(pen, SHAPES[thing.shape], shadow, radius, "#00000030" if scene.background == 4 else "#8d8578")
        _draw_shape(pen, SHAPES[thing.shape], centre, radius, tuple(COLOURS.values())[thing.colour])
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], radius: float, colour: str) -> None:
    x, y = centre

    def box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        return (x + left * radius, y + top * radius, x + right * radius, y + bottom * radius)

    def polygon(points: Sequence[tuple[float, float]]) -> None:
        pen.polygon([(x + radius * across, y + radius * down) for across, down in points], fill=colour)

    if shape == "disc":
        pen.ellipse(box(-1, -1, 1, 1), fill=colour)
    elif shape == "ring":
        pen.ellipse(box(-1, -1, 1, 1), outline=colour, width=max(2, int(0.35 * radius)))
    elif shape == "square":
        pen.rounded_rectangle(box(-0.85, -0.85, 0.85, 0.85), radius=0.2 * radius, fill=colour)
    elif shape == "cross":
        pen.rectangle(box(-0.3, -1, 0.3, 1), fill=colour)
        pen.rectangle(box(-1, -0.3, 1, 0.3), fill=colour)
    elif shape == "flower":
        for petal in range(6):
            across, down = 0.6 * math.cos(petal * math.pi / 3), 0.6 * math.sin(petal * math.pi / 3)
            pen.ellipse(box(across - 0.4, down - 0.4, across + 0.4, down + 0.4), fill=colour)
    elif shape == "moon":
        pen.chord(box(-1, -1, 1, 1), 60, 300, fill=colour)
    elif shape == "house":
        polygon([(-0.8, 1), (-0.8, -0.1), (0, -1), (0.8, -0.1), (0.8, 1)])
    elif shape == "triangle":
        polygon([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    elif shape == "heart":
        turn = np.linspace(0, 2 * math.pi, 40)
        down = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
        polygon(list(zip(np.sin(turn) ** 3, down, strict=True)))
    else:
        turn = np.arange(10) * math.pi / 5 - math.pi / 2
        reach = np.where(np.arange(10) % 2, 0.42, 1.0)
        polygon(list(zip(reach * np.cos(turn), reach * np.sin(turn), strict=True)))
