"""What the images of a source show, their captions and their thumbnails.

An image has regions, each of one guise of one of the image's few topics. Whatever is drawn (a topic, a guise of it, a
concept of a guise) is drawn as often as its concepts fire together, so that every concept keeps its expected number of
codes however much the concepts of an image have in common. In the thumbnail a region is a patch of colour (its topic)
and pattern (its guise), where its codes fire.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from engine.files import write_whole
from precompute.runner import Progress
from precompute.stages.corpus import ImageRecord, write_manifest
from precompute.stages.thumbnails import thumb_path
from precompute.synthetic.world import DOMAINS, GUISES, GUISES_EACH, PICTURED, World

REGIONS, TOPICS = 7, 3
"""Per image."""
PALETTE, COMMON_PALETTE = 32, 40
"""Concepts drawn per region, half of its guise and half of its whole topic, and per image of the common ones."""
SAME_DOMAIN = 0.6
"""How often an image's further topics are of the domain of its first."""
FIDELITY = 0.75
"""Share of the regions that a model's image has in common with the real one of the same caption."""
NAMED = 3
"""Regions that a caption names."""
SIDE = 96
"""Pixels."""
QUALITY = 75
DRAWN_AT_ONCE = 50
"""Scenes drawn at once."""
TINTS = {"red": 0.0, "blue": 0.62, "green": 0.34, "yellow": 0.15}
"""Hues of the guises that are colours."""


@dataclass(frozen=True)
class Scenes:
    """The images of one source before they are codes or pixels."""

    topics: np.ndarray
    """int32 `[images, TOPICS]`"""
    regions: np.ndarray
    """int32 `[images, REGIONS]`, communities."""
    palettes: np.ndarray
    """int32 `[images, REGIONS, PALETTE]`, concepts, the leading ones first."""
    common: np.ndarray
    """int32 `[images, COMMON_PALETTE]`, concepts that fire anywhere in the image."""
    centres: np.ndarray
    """float32 `[images, REGIONS, 2]`, row and column in 0..1; a patch belongs to the region of the nearest centre."""

    def __len__(self) -> int:
        return len(self.regions)


def imagine(world: World, images: int, rng: np.random.Generator) -> Scenes:
    """The real images."""
    topics = _topics(world, images, rng)
    regions, palettes = _regions(world, topics, rng)
    centres = rng.random((images, REGIONS, 2)).astype(np.float32)
    return Scenes(topics, regions, palettes, _common(world, images, rng), centres)


def reimagine(world: World, scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A model's images of the same captions: most regions stay, the others show something else of the same topics."""
    regions, palettes = _regions(world, scenes.topics, rng)
    kept = rng.random(scenes.regions.shape) < FIDELITY
    common = np.where(rng.random(scenes.common.shape) < FIDELITY, scenes.common, _common(world, len(scenes), rng))
    return replace(
        scenes,
        regions=np.where(kept, scenes.regions, regions),
        palettes=np.where(kept[:, :, None], scenes.palettes, palettes),
        common=common,
        centres=(scenes.centres + rng.normal(0, 0.04, scenes.centres.shape)).astype(np.float32),
    )


def captions(world: World, scenes: Scenes, rng: np.random.Generator) -> list[str]:
    """One caption per image: its first regions by name."""
    opening = rng.integers(0, len(PICTURED), len(scenes))
    topics, guises = world.topic_of(scenes.regions), world.guise_of(scenes.regions)
    said = []
    for image in range(len(scenes)):
        pairs = zip(guises[image, :NAMED], topics[image, :NAMED], strict=True)
        parts = list(dict.fromkeys(f"{_article(guise)} {GUISES[guise]} {world.names[topic]}" for guise, topic in pairs))
        listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
        said.append(f"{PICTURED[opening[image]]} {listed}")
    return said


def _article(guise: int) -> str:
    return "an" if GUISES[guise][0] in "aeiou" else "a"


def _topics(world: World, images: int, rng: np.random.Generator) -> np.ndarray:
    """int32 `[images, TOPICS]`"""
    shape = (images, TOPICS)
    topics = world.topic_of(_drawn(world, *_span(np.zeros(shape, int), np.full(shape, world.topics - 1)), rng))
    domain = np.repeat(world.domain[topics[:, :1]], TOPICS, axis=1)
    first, end = (np.searchsorted(world.domain, domain, side=side) for side in ("left", "right"))
    alike = world.topic_of(_drawn(world, *_span(first, end - 1), rng))
    stays = rng.random((images, TOPICS)) >= SAME_DOMAIN
    stays[:, 0] = True
    return np.where(stays, topics, alike).astype(np.int32)


def _regions(world: World, topics: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Communities and palettes of the regions of images of these topics."""
    shown = np.take_along_axis(topics, rng.integers(0, TOPICS, (len(topics), REGIONS)), axis=1)
    first, last = _span(shown, shown)
    regions = _drawn(world, first, last, rng)
    wide = rng.random((*shown.shape, PALETTE)) < 0.5
    low, high = (np.where(wide, bound[..., None], regions[..., None]) for bound in (first, last))
    return regions.astype(np.int32), world.order[world.draw(low, high, rng)]


def _common(world: World, images: int, rng: np.random.Generator) -> np.ndarray:
    nowhere = np.zeros((images, COMMON_PALETTE), int)
    return world.order[world.draw(nowhere, nowhere, rng)]


def _drawn(world: World, first: np.ndarray, last: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Communities between `first` and `last`, as frequent as their concepts fire."""
    return world.community[world.order[world.draw(first, last, rng)]]


def _span(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and last communities of topics `first` to `last`."""
    return 1 + first * GUISES_EACH, (last + 1) * GUISES_EACH


def region_maps(centres: np.ndarray, side: int) -> np.ndarray:
    """Which region each patch belongs to, uint8 `[images, side * side]`; centres are `[images, regions, 2]`."""
    at = ((np.arange(side) + 0.5) / side).astype(np.float32)
    rows = (centres[:, :, 0, None] - at) ** 2
    columns = (centres[:, :, 1, None] - at) ** 2
    nearest = (rows[:, :, :, None] + columns[:, :, None, :]).argmin(axis=1)
    return nearest.reshape(len(centres), -1).astype(np.uint8)


def write_pictures(
    world: World, scenes: Scenes, said: list[str], name: str, folder: Path, progress: Progress
) -> dict[str, int]:
    """Write the thumbnails and the list of a source's images; thumbnails that are there are kept.

    Parameters
    ----------
    said
        The captions.
    name
        Of the source.
    folder
        The stage's folder.
    progress
        Called with the images done and all images.
    """
    pictures = []
    drawn = enumerate(draw(world, scenes))
    with ThreadPoolExecutor() as pool:
        while some := list(islice(drawn, DRAWN_AT_ONCE)):
            for number, digest in pool.map(lambda numbered: _keep(folder, *numbered), some):
                path, file = thumb_path(folder, number), f"{name}/{number:07d}.webp"
                pictures.append(ImageRecord(path, file, str(number), said[number], SIDE, SIDE, digest))
            progress(len(pictures), len(scenes))
    return write_manifest(folder, pictures, [])


def draw(world: World, scenes: Scenes) -> Iterator[np.ndarray]:
    """The pictures of scenes, uint8 `[SIDE, SIDE, 3]` each."""
    colours, patterns = community_colours(world), guise_patterns()
    for start in range(0, len(scenes), DRAWN_AT_ONCE):
        part = slice(start, start + DRAWN_AT_ONCE)
        for regions, at in zip(scenes.regions[part], region_maps(scenes.centres[part], SIDE), strict=True):
            light = np.take_along_axis(patterns[world.guise_of(regions)], at.reshape(1, SIDE, SIDE), axis=0)[0]
            shown = (255 * colours[regions])[at].reshape(SIDE, SIDE, 3)
            yield np.minimum(shown * light[:, :, None], 255).astype(np.uint8)


def community_colours(world: World) -> np.ndarray:
    """float32 `[communities, 3]`: the domain's hue in the topic's shade, or the guise's if it is a colour."""
    communities = np.arange(len(world.starts) - 1)
    colours = np.zeros((len(communities), 3), np.float32)
    for community in communities[1:]:
        topic, guise = int(world.topic_of(community)), GUISES[int(world.guise_of(community))]
        hue = TINTS.get(guise, world.domain[topic] / len(DOMAINS))
        # The golden ratio's multiples spread over 0..1 however many topics there are.
        spread = topic * 0.618 % 1
        colours[community] = colorsys.hsv_to_rgb(hue, 0.35 + 0.5 * spread, 0.9 - 0.45 * (3 * spread % 1))
    return colours


def guise_patterns() -> np.ndarray:
    """float32 `[guises, SIDE, SIDE]`, the light and shade of each guise."""
    row, column = np.indices((SIDE, SIDE)).astype(np.float32)
    noise = np.random.default_rng(0).random((SIDE, SIDE)).astype(np.float32)
    fine, coarse = 2 * np.pi / 10, 2 * np.pi / 24
    drawn = {
        "striped": np.sign(np.sin(fine * (row + column))),
        "dotted": np.sign(np.cos(fine * row) * np.cos(fine * column) - 0.3),
        "checked": np.sign(np.sin(fine * row) * np.sin(fine * column)),
        "wooden": np.sin(fine * row + 2 * np.sin(column / 15)),
        "old": -0.6 * noise,
        "broken": np.sign(np.sin(coarse * (row - 2 * column)) - 0.8),
        "tiny": np.sign(np.cos(2 * fine * row) * np.cos(2 * fine * column) - 0.4),
        "huge": np.cos(np.pi * np.hypot(row - SIDE / 2, column - SIDE / 2) / SIDE),
        "shiny": np.cos(coarse * (row - column)) ** 8,
        "blurred": np.sin(coarse * row / 2) * np.sin(coarse * column / 2),
        "distant": 0.8 + 0 * row,
        "crowded": 2 * noise - 1,
    }
    plain = np.zeros((SIDE, SIDE), np.float32)
    return 1 + 0.28 * np.stack([drawn.get(guise, plain) for guise in GUISES]).astype(np.float32)


def _keep(folder: Path, number: int, pixels: np.ndarray) -> tuple[int, str]:
    """Write one thumbnail; returns its number and SHA-256."""
    path = thumb_path(folder, number)
    if path.exists():
        return number, hashlib.sha256(path.read_bytes()).hexdigest()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=QUALITY, method=2)
    write_whole(path, lambda partial: partial.write_bytes(buffer.getvalue()))
    return number, hashlib.sha256(buffer.getvalue()).hexdigest()
