"""The images of a source, gathered from a folder or drawn by code, and their list as the other stages read it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from unicodedata import normalize

import pandas as pd
from PIL import Image

from engine.atlas.schema import REAL
from engine.atlas.writer import AtlasWriter
from engine.errors import BlindspotError, printable
from engine.files import file_hash, read_json, visible_files, write_json, write_whole
from engine.vision.preprocess import ImageError, decoded_image, sniff_format, unread_format
from precompute.corpora.records import (  # also for whoever looks for them here
    MANIFEST,  # noqa: F401
    SKIPPED,  # noqa: F401
    ImageRecord,
    SkippedImage,
    dataset_files,
    read_manifest,
    read_skipped,
    write_manifest,
)
from precompute.recipe import Dataset, Folder, Limits, Pipeline, Urls, World
from precompute.runner import Context, Progress, Stage, fingerprint_fields
from precompute.stages.captions import UnreadCaption, find_captions

_SUFFIXES = """
    .jpg .jpeg .jfif .jpe .png .apng .webp .bmp .dib .gif .tif .tiff .avif .jp2 .j2k .jpf .jpx .ppm .pgm .pbm .pnm
    .heic .heif .hif .jxl .qoi .ico .tga .pcx
"""
SUFFIXES = frozenset(_SUFFIXES.split())
"""Files with these endings are images; others are if their content says so."""
_RAW = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")
UNREAD = {
    **dict.fromkeys(_RAW, "a camera's raw file"),
    **{".psd": "Photoshop", ".xcf": "GIMP", ".exr": "OpenEXR", ".hdr": "Radiance HDR", ".svg": "SVG", ".eps": "EPS"},
}
"""Endings of images that are not read, and what they are."""
_OTHER = ".txt .caption .json .jsonl .csv .tsv .parquet .md .yaml .npy .npz .py .html .pdf"
NOT_SNIFFED = frozenset(_OTHER.split())
"""Endings of files that are no images."""
ENOUGH = 0.5
"""Share of the real images that must have a counterpart in a model's folder for those to be its sample."""
CAPTIONS = "captions.json"
LABELS = "labels.json"
"""Ground truth of a drawn world: rows of [position, attribute, value]."""


class CorpusStage(Stage):
    """`corpus/S`: the usable images of a folder, or the scenes of a world, with their captions."""

    def __init__(self, context: Context, source: str) -> None:
        block = context.source(source)
        assert not isinstance(block, Pipeline)
        limits = context.recipe.limits
        params = {
            "source": fingerprint_fields(block, "pairing", "workers", "timeout"),
            "limits": fingerprint_fields(limits, *(() if limits.images else ("seed",))),
        }
        reads: tuple[Path, ...] = ()
        after = (context.images_stage(REAL),) if limits.images and source != REAL else ()
        if isinstance(block, Folder):
            # Raised when what is read from folders changes.
            params["reader"], reads = {"version": 2}, (block.folder,)
        elif isinstance(block, Urls):
            reads = (block.urls,)
        elif isinstance(block, Dataset) and Path(block.dataset).is_absolute():
            reads = tuple(map(Path, dataset_files(block.dataset)))
        super().__init__(context, f"corpus/{source}", params, after, reads)
        self.block, self.sampled_with = block, after

    def run(self, folder: Path, progress: Progress) -> dict[str, int]:
        """Write the manifest, and for a world its images and ground truth."""
        limits = self.context.recipe.limits
        if isinstance(self.block, World):
            return draw_world(self.block, limits, folder, progress)
        if isinstance(self.block, Urls):
            from precompute.corpora.urls import gather_urls

            return gather_urls(self.block, limits, folder, progress)
        if isinstance(self.block, Dataset):
            from precompute.corpora.collections import gather_dataset

            return gather_dataset(self.block, limits, folder, progress)
        assert isinstance(self.block, Folder)
        real = images_of(self.context, REAL) if self.sampled_with and self.block.pairing != "none" else ()
        return gather_folder(self.block, limits, folder, progress, real)

    @classmethod
    def add_to_atlas(cls, context: Context, writer: AtlasWriter) -> None:
        """Write the table `labels` if the real images have a ground truth, and `provenance` if addresses are known."""
        rows = [
            (start + position, image.url, image.licence, image.sha256)
            for name, start in first_images(context).items()
            for position, image in enumerate(images_of(context, name))
            if image.url or image.licence
        ]
        if rows:
            columns = ["image", "url", "licence", "sha256"]
            writer.write_table("provenance", pd.DataFrame(rows, columns=columns).astype({"licence": "string"}))
        path = context.folder(context.images_stage(REAL)) / LABELS
        if path.exists():
            labels = pd.DataFrame(read_json(path), columns=["image", "attribute", "value"])
            writer.write_table("labels", labels.astype({"attribute": str, "value": str}))


def count_skipped(folder: Path) -> dict[str, int]:
    """How many images of a source were left out for which reason, most first."""
    return dict(Counter(one.kind for one in read_skipped(folder)).most_common())


def read_unread_captions(folder: Path) -> list[UnreadCaption]:
    """The files with captions of a source that were not read as they stand."""
    path = folder / CAPTIONS
    return [UnreadCaption(**row) for row in read_json(path)] if path.exists() else []


def images_of(context: Context, source: str) -> list[ImageRecord]:
    """The images of a source, in order."""
    return read_manifest(context.folder(context.images_stage(source)))


def first_images(context: Context) -> dict[str, int]:
    """Per source the global id of its first image."""
    counts = [context.work.summary(context.images_stage(name))["images"] for name in context.sources]
    return dict(zip(context.sources, accumulate(counts, initial=0), strict=False))


def gather_folder(
    source: Folder, limits: Limits, folder: Path, progress: Progress, real: Sequence[ImageRecord] = ()
) -> dict[str, int]:
    """List the images of a folder with their captions; those that cannot be read are skipped and listed.

    Each image is decoded here to find the damaged ones before the long work starts, and once more when it is encoded.

    Parameters
    ----------
    source : where the images are.
    limits : how many are taken, at random, and how large they may be.
    folder : the stage's folder; gets the manifest.
    progress : called with the images seen and all images.
    real : the real images that were taken, whose counterparts are taken of a model's.

    Raises
    ------
    BlindspotError
        If the folder is missing, has no images, or none that can be read.
    """
    left_out: dict[str, str] = {}
    everything = image_names(source.folder, left_out)
    names = everything
    if limits.images is not None and len(everything) > limits.images:
        names = _counterparts(source, everything, real) or sample_names(everything, limits.images, limits.seed)
    captions, unread = find_captions(source.folder, names)
    images: list[ImageRecord] = []
    skipped: list[SkippedImage] = []
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: _check(source.folder, name, captions.get(name), limits.max_pixels), names)
        for done, one in enumerate(found, start=1):
            if isinstance(one, ImageRecord):
                images.append(one)
            else:
                skipped.append(one)
            progress(done, len(names))
    if not images:
        raise BlindspotError(
            f"None of the {len(names)} images in {source.folder} can be used; the first: {skipped[0].reason}"
        )
    skipped += [
        SkippedImage(printable(str(source.folder / name)), _stem(name), printable(f"{name} is not read: {why}."), why)
        for name, why in sorted(left_out.items())
    ]
    write_json(folder / CAPTIONS, [one._asdict() for one in unread])
    sampled = {"sampled_from": len(everything)} if len(names) < len(everything) else {}
    return write_manifest(folder, images, skipped) | sampled


def sample_names(names: Sequence[str], count: int, seed: int) -> list[str]:
    """A random sample of names in their order, those with the smallest hashes: it hardly changes with the folder."""

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed}/{_stem(name)}".encode("utf-8", "surrogateescape")).digest()

    return sorted(sorted(names, key=place)[:count])


def _counterparts(source: Folder, names: Sequence[str], real: Sequence[ImageRecord]) -> list[str]:
    """The images of a model's folder with the stem, else the caption, of a real one; none if few have."""
    least = 1 if source.pairing in ("stem", "caption") else ENOUGH * len(real)
    if source.pairing in ("auto", "stem"):
        stems = {normalize("NFC", image.stem) for image in real}
        found = [name for name in names if normalize("NFC", _stem(name)) in stems]
        if real and len(found) >= least:
            return found
    if source.pairing in ("auto", "caption") and real:
        wanted = {normalize("NFC", image.caption) for image in real if image.caption}
        captions, _ = find_captions(source.folder, names)
        found = [name for name in names if normalize("NFC", captions.get(name, "")) in wanted]
        if found and len(found) >= least:
            return found
    return []


def image_names(folder: Path, left_out: dict[str, str] | None = None) -> list[str]:
    """Relative paths of all images below a folder, sorted; `left_out` gets why other files are not looked at.

    Raises
    ------
    BlindspotError
        If the folder is missing or has no images.
    """
    if not folder.is_dir():
        raise BlindspotError(
            f"There is no folder {folder}; give the folder that holds the images, or of a data set of the Hugging Face "
            "hub its id as `dataset`."
        )
    names = sorted(name for name in visible_files(folder, left_out) if _is_image(folder / name))
    if not names:
        seen = "".join(f" ({name} is {why})" for name, why in list((left_out or {}).items())[:1])
        raise BlindspotError(f"The folder {folder} has no images; it needs files such as .jpg, .png or .webp{seen}.")
    return names


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in UNREAD:
        return True
    if suffix in NOT_SNIFFED:
        return False
    try:
        with open(path, "rb") as handle:
            return sniff_format(handle.read(64)) not in (None, "PDF", "PostScript")
    except OSError:
        return False


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _check(folder: Path, name: str, caption: str | None, max_pixels: int) -> ImageRecord | SkippedImage:
    path = folder / name
    try:
        if path.suffix.lower() in UNREAD:
            raise unread_format(str(path), UNREAD[path.suffix.lower()])
        with decoded_image(path, max_pixels=max_pixels) as image:
            width, height = image.size
    except ImageError as error:
        return SkippedImage(printable(str(path)), _stem(name), str(error), error.kind)
    return ImageRecord(path, printable(str(path)), _stem(name), caption, width, height, file_hash(path))


def draw_world(source: World, limits: Limits, folder: Path, progress: Progress) -> dict[str, int]:
    """Draw the scenes of the tabletop world as PNG files, with captions and ground truth.

    Parameters
    ----------
    source : how many, from which seed, how large.
    limits : may lower their number.
    folder : the stage's folder; gets `images/`, the manifest and the labels.
    progress : called with the scenes drawn and all scenes.
    """
    from precompute.demo_world.scenes import corpus, draw

    count = min(source.count, limits.images or source.count)
    images, labels = [], []
    for index, scene in enumerate(corpus(count, source.seed)):
        path = image_path(folder, index)
        if not path.exists():
            save_png(Image.fromarray(draw(scene, source.size)), path)
        images.append(stored_image(path, folder, scene.caption, (source.size, source.size)))
        truth = {("background", scene.background)}
        for thing in scene.things:
            truth |= {("kind", thing.kind), ("colour", thing.colour)}
        labels += [[index, attribute, value] for attribute, value in sorted(truth)]
        progress(index + 1, count)
    write_json(folder / LABELS, labels)
    return write_manifest(folder, images, [])


def image_path(folder: Path, number: int) -> Path:
    """Where a stage keeps an image that it made."""
    return folder / "images" / f"{number:07d}.png"


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda partial: image.save(partial, format="PNG"))


def stored_image(path: Path, folder: Path, caption: str | None, size: tuple[int, int]) -> ImageRecord:
    """The record of an image in a stage's own folder; `size` is its width and height."""
    file = f"{folder.parent.name}/{folder.name}/images/{path.name}"
    return ImageRecord(path, file, path.stem, caption, *size, file_hash(path))
