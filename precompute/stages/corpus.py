"""The images of a source: gathered from a folder, or drawn by code."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from engine.errors import BlindspotError
from engine.files import file_hash, visible_files, write_json, write_whole
from engine.vision.preprocess import load_image
from precompute.plan import Progress
from precompute.recipe import Folder, Limits, World
from precompute.stages.captions import read_captions
from precompute.stages.manifest import Picture, Skipped, write_manifest

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm")
"""Files with these endings are images."""
LABELS = "labels.json"
"""Ground truth of a drawn world: rows of [position, attribute, value]."""


def gather_folder(source: Folder, limits: Limits, folder: Path, progress: Progress) -> dict[str, int]:
    """List the images of a folder with their captions; those that cannot be read are skipped and listed.

    Args:
        source: where the images are.
        limits: how many are taken, in order of their names, and how large they may be.
        folder: the stage's folder; gets the manifest.
        progress: called with the images seen and all images.

    Raises:
        BlindspotError: the folder is missing, has no images, or none that can be read.
    """
    names = image_names(source.folder)[: limits.images]
    captions = read_captions(source.folder, names)
    pictures, skipped = [], []

    def look(name: str) -> Picture | Skipped:
        return _look(source.folder, name, captions.get(name), limits.max_pixels)

    with ThreadPoolExecutor() as pool:
        for done, found in enumerate(pool.map(look, names), start=1):
            (pictures if isinstance(found, Picture) else skipped).append(found)
            progress(done, len(names))
    if not pictures:
        raise BlindspotError(
            f"None of the {len(names)} images in {source.folder} can be used; the first: {skipped[0].reason}"
        )
    return write_manifest(folder, pictures, skipped)


def image_names(folder: Path) -> list[str]:
    """Relative paths of all images below a folder, sorted.

    Raises:
        BlindspotError: the folder is missing or has no images.
    """
    if not folder.is_dir():
        raise BlindspotError(f"There is no folder {folder}; give the folder that holds the images.")
    names = sorted(name for name in visible_files(folder) if Path(name).suffix.lower() in SUFFIXES)
    if not names:
        raise BlindspotError(f"The folder {folder} has no images; it needs files such as .jpg, .png or .webp.")
    return names


def _look(folder: Path, name: str, caption: str | None, max_pixels: int) -> Picture | Skipped:
    path = folder / name
    stem = Path(name).with_suffix("").as_posix()
    try:
        width, height = load_image(path, max_pixels=max_pixels).size
    except BlindspotError as error:
        return Skipped(str(path), stem, str(error))
    return Picture(path, str(path), stem, caption, width, height, file_hash(path))


def draw_world(source: World, limits: Limits, folder: Path, progress: Progress) -> dict[str, int]:
    """Draw the scenes of the tabletop world as PNG files, with captions and ground truth.

    Args:
        source: how many, from which seed, how large.
        limits: may lower their number.
        folder: the stage's folder; gets `images/`, the manifest and the labels.
        progress: called with the scenes drawn and all scenes.
    """
    from precompute.tabletop.scenes import corpus, draw

    count = min(source.count, limits.images or source.count)
    scenes = corpus(count, source.seed)
    pictures = []
    for index, scene in enumerate(scenes):
        path = folder / "images" / f"{index:07d}.png"
        if not path.exists():
            save_png(Image.fromarray(draw(scene, source.size)), path)
        file = f"{folder.parent.name}/{folder.name}/images/{path.name}"
        pictures.append(Picture(path, file, path.stem, scene.caption, source.size, source.size, file_hash(path)))
        progress(index + 1, count)
    truth = [[index, attribute, value] for index, scene in enumerate(scenes) for attribute, value in _labels(scene)]
    write_json(folder / LABELS, truth)
    return write_manifest(folder, pictures, [])


def _labels(scene) -> list[tuple[str, str]]:
    """What is in a scene, each attribute and value once."""
    pairs = {("background", scene.background)}
    for thing in scene.things:
        pairs |= {("kind", thing.kind), ("colour", thing.colour)}
    return sorted(pairs)


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda partial: image.save(partial, format="PNG"))
