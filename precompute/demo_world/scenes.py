"""Scenes of the demo world: what is in one, how it is sampled, captioned and drawn.

A `Scene` is the ground truth; `draw` and `masks` are pure functions of it. The artwork is in `toys` and `surfaces`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from precompute.demo_world.surfaces import PAINTERS, background
from precompute.demo_world.toys import ARTISTS, COLOURS, Sprite, paint_thing

KINDS: tuple[str, ...] = tuple(ARTISTS)
BACKGROUNDS: tuple[str, ...] = tuple(PAINTERS)
PLACES: dict[str, str] = {
    "wooden table": "on a wooden table",
    "grass": "on grass",
    "brick wall": "on a brick wall",
    "sky": "in the sky",
    "paper": "on paper",
    "checked cloth": "on a checked cloth",
}
SIZES: tuple[tuple[float, float], ...] = ((0.42, 0.60), (0.34, 0.44), (0.28, 0.36), (0.24, 0.30))
"""Smallest and largest side of a thing, in image sides, when a scene holds one, two, three or four of them."""
MARGIN = 0.02
"""Room kept free along the image's border, in image sides."""
SHADOW_STRENGTH: dict[str, float] = {"sky": 0.3, "paper": 0.8}
"""How dark shadows are where they are not at full strength: the sky is far away, a page is bright."""


@dataclass(frozen=True)
class Thing:
    """One toy."""

    kind: str
    colour: str
    x: float
    """Centre of its bounding square from the left, in image sides."""
    y: float
    """Centre of its bounding square from the top, in image sides."""
    size: float
    """Side of its bounding square, in image sides."""

    @property
    def phrase(self) -> str:
        """Its words in a caption: "an orange fish"."""
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """Toys on a surface: everything needed to draw the picture and to know what is in it."""

    background: str
    things: tuple[Thing, ...]
    seed: int
    """Drives the surface's offset, scale and brightness and the toys' poses."""

    @property
    def caption(self) -> str:
        """The scene in plain English, its things from left to right."""
        phrases = [thing.phrase for thing in sorted(self.things, key=lambda thing: thing.x)]
        listed = " and ".join(filter(None, [", ".join(phrases[:-1]), *phrases[-1:]]))
        return f"{listed} {PLACES[self.background]}".lstrip()

    def to_dict(self) -> dict[str, Any]:
        """The scene as JSON-friendly ground truth, its caption included."""
        return {**asdict(self), "things": [asdict(thing) for thing in self.things], "caption": self.caption}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Scene:
        """The scene that `to_dict` wrote down."""
        things = tuple(Thing(**thing) for thing in record["things"])
        return cls(background=record["background"], things=things, seed=record["seed"])


def sample_scene(
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = KINDS,
    backgrounds: Sequence[str] = BACKGROUNDS,
    counts: Sequence[float] = (0.5, 0.35, 0.15),
    background_weights: Sequence[float] | Mapping[str, float] | None = None,
) -> Scene:
    """Draw a scene at random.

    Parameters
    ----------
    rng
        The only source of randomness.
    kinds, backgrounds
        What to choose from, kinds uniformly.
    counts
        Relative frequency of scenes with one, two, ... things; at most `len(SIZES)` entries.
    background_weights
        Relative frequency of each of `backgrounds`, in order or by name; uniform if not given.

    Raises
    ------
    ValueError
        If `counts` asks for more things than there are sizes for.
    """
    if not 1 <= len(counts) <= len(SIZES):
        raise ValueError(f"counts holds {len(counts)} frequencies; a scene has 1 to {len(SIZES)} things")
    if isinstance(background_weights, Mapping):
        background_weights = [background_weights.get(name, 0.0) for name in backgrounds]
    number = 1 + _choose(rng, len(counts), counts)
    place = backgrounds[_choose(rng, len(backgrounds), background_weights)]
    colours = tuple(COLOURS)
    spots = _layout(rng, number)
    things = [
        Thing(kinds[int(rng.integers(len(kinds)))], colours[int(rng.integers(len(colours)))], *spot) for spot in spots
    ]
    return Scene(place, tuple(sorted(things, key=lambda thing: thing.x)), int(rng.integers(2**31)))


def corpus(count: int, seed: int, **kwargs: Any) -> list[Scene]:
    """`count` scenes of which scene i depends on `seed` and i alone; `kwargs` as for `sample_scene`."""
    return [sample_scene(np.random.default_rng([seed, index]), **kwargs) for index in range(count)]


def draw(scene: Scene, size: int = 64) -> np.ndarray:
    """Draw a scene, uint8 `[size, size, 3]` RGB."""
    canvas = background(scene.background, np.random.default_rng([scene.seed, 0]), size)
    sprites = [_sprite(scene, thing, size) for thing in scene.things]
    strength = SHADOW_STRENGTH.get(scene.background, 1.0)
    for thing, sprite in zip(scene.things, sprites, strict=True):
        canvas *= 1 - strength * _shadow(_place(sprite, size), thing.size * size)
    for sprite in sprites:
        (rows, columns), (tile_rows, tile_columns) = _overlap(sprite, size)
        cover = sprite.coverage[tile_rows, tile_columns, None]
        patch = canvas[rows, columns]
        patch += cover * (sprite.pixels[tile_rows, tile_columns] - patch)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def masks(scene: Scene, size: int = 64) -> np.ndarray:
    """How much of each pixel each thing covers, shadows left out: float32 `[things, size, size]` in 0..1."""
    covers = [_place(_sprite(scene, thing, size), size) for thing in scene.things]
    for index, cover in enumerate(covers):
        for nearer in covers[index + 1 :]:
            cover *= 1 - nearer
    return np.stack(covers) if covers else np.zeros((0, size, size), np.float32)


def _choose(rng: np.random.Generator, options: int, weights: Sequence[float] | None) -> int:
    """The index of one of `options`, with relative frequencies `weights`."""
    shares = np.ones(options) if weights is None else np.asarray(weights, float)
    return int(rng.choice(options, p=shares / shares.sum()))


def _layout(rng: np.random.Generator, number: int, tries: int = 64) -> list[tuple[float, float, float]]:
    """Centres and sides (x, y, size) of `number` squares inside the image that do not overlap, by rejection."""
    first, second = np.triu_indices(number, 1)
    while True:
        sides = rng.uniform(*SIZES[number - 1], (tries, number))
        reach = sides[..., None] / 2 + MARGIN
        centres = reach + rng.random((tries, number, 2)) * (1 - 2 * reach)
        distance = np.abs(centres[:, first] - centres[:, second]).max(axis=-1)
        apart = (distance >= (sides[:, first] + sides[:, second]) / 2).all(axis=-1)
        if apart.any():
            chosen = int(apart.argmax())
            spots = np.concatenate([centres[chosen], sides[chosen, :, None]], axis=-1)
            return [tuple(spot) for spot in spots.round(4).tolist()]


def _sprite(scene: Scene, thing: Thing, size: int) -> Sprite:
    """The thing as painted in this scene; its pose depends on its own place, not on the other things."""
    rng = np.random.default_rng([scene.seed, 1, round(abs(thing.x) * 10_000), round(abs(thing.y) * 10_000)])
    return paint_thing(thing.kind, thing.colour, (thing.x * size, thing.y * size), thing.size * size, rng)


def _overlap(sprite: Sprite, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where sprite and image overlap: rows and columns of the image, rows and columns of the sprite."""

    def span(start: int, length: int) -> tuple[slice, slice]:
        begin = min(max(start, 0), size)
        end = max(min(start + length, size), begin)
        return slice(begin, end), slice(begin - start, end - start)

    height, width = sprite.coverage.shape
    rows, columns = span(sprite.top, height), span(sprite.left, width)
    return (rows[0], columns[0]), (rows[1], columns[1])


def _place(sprite: Sprite, size: int) -> np.ndarray:
    """The sprite's coverage on the whole image, float32 `[size, size]`."""
    cover = np.zeros((size, size), np.float32)
    (rows, columns), on_tile = _overlap(sprite, size)
    cover[rows, columns] = sprite.coverage[on_tile]
    return cover


def _shadow(cover: np.ndarray, side: float) -> np.ndarray:
    """What a thing of `side` pixels takes from each colour of the surface: a crisp contact and a soft cast shadow.

    `cover` is `[size, size]`; returns float32 `[size, size, 3]` in 0..1, a little cooler than the surface.
    """
    image = Image.fromarray((cover * 255).astype(np.uint8))
    dark = np.zeros_like(cover)
    for shift, blur, depth in ((0.03, 0.03, 0.3), (0.08, 0.07, 0.36)):
        soft = np.asarray(image.filter(ImageFilter.GaussianBlur(max(0.6, blur * side))), np.float32) / 255
        down, right = max(1, round(shift * side)), max(1, round(0.6 * shift * side))
        dark[down:, right:] += depth * soft[:-down, :-right]
    return dark[..., None] * np.array([1.0, 0.96, 0.84], np.float32)
