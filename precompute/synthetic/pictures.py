"""Thumbnails of scenes: each region a patch of colour (its topic) and pattern (its guise), where its codes fire."""

from __future__ import annotations

import colorsys
import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from engine.files import write_whole
from precompute.runner import Progress
from precompute.stages.corpus import ImageRecord, write_manifest
from precompute.stages.thumbnails import thumb_path
from precompute.synthetic.codes import region_maps
from precompute.synthetic.scenes import Scenes
from precompute.synthetic.vocabulary import DOMAINS, GUISES
from precompute.synthetic.world import World

SIDE = 96
"""Pixels."""
QUALITY = 75
CHUNK = 50
"""Scenes drawn at once."""
TINTS = {"red": 0.0, "blue": 0.62, "green": 0.34, "yellow": 0.15}
"""Hues of the guises that are colours."""


def write_pictures(
    world: World, scenes: Scenes, said: list[str], name: str, folder: Path, progress: Progress
) -> dict[str, int]:
    """Write the thumbnails and the list of a source's images; thumbnails that are there are kept.

    Parameters
    ----------
    said : the captions.
    name : of the source.
    folder : the stage's folder.
    progress : called with the images done and all images.
    """
    pictures = []
    drawn = enumerate(draw(world, scenes))
    with ThreadPoolExecutor() as pool:
        while some := list(islice(drawn, CHUNK)):
            for number, digest in pool.map(lambda numbered: _keep(folder, *numbered), some):
                path, file = thumb_path(folder, number), f"{name}/{number:07d}.webp"
                pictures.append(ImageRecord(path, file, str(number), said[number], SIDE, SIDE, digest))
            progress(len(pictures), len(scenes))
    return write_manifest(folder, pictures, [])


def draw(world: World, scenes: Scenes) -> Iterator[np.ndarray]:
    """The pictures of scenes, uint8 `[SIDE, SIDE, 3]` each."""
    colours, patterns = community_colours(world), guise_patterns()
    for start in range(0, len(scenes), CHUNK):
        part = slice(start, start + CHUNK)
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
