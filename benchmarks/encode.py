"""How near does encoding files come to the bare forward pass of the encoder?

    python -m precompute benchmark encode --images 256 --json

The photographs of scikit-learn, cut and mirrored in as many ways, are written as JPEG files of 640 x 427 pixels. `bare`
is how many images a second the encoder computes that are in memory already, `end_to_end` what the stage `encode` does
of files: read, decode, resize, compute, write tokens, embeddings and thumbnails. Both take turns, and the best round of
each counts; `share` is the second over the first. `core_ms` are the milliseconds of processors that an image takes,
whose share is told apart from what else the machine does, and `parts` those of each step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.photographs import ENCODER
from engine.vision.encoder import Encoder
from engine.vision.preprocess import decoded_image, to_tensor
from engine.vision.spec import EncoderConfig
from precompute.console import quieten_libraries
from precompute.recipe import ThumbnailConfig
from precompute.stages.corpus import ImageRecord
from precompute.stages.encode import encode
from precompute.stages.thumbnails import save_thumbnail

MOST_PIXELS, TIMED = 10**8, 32


def photographs(folder: Path, count: int) -> list[ImageRecord]:
    """JPEG files that differ, of the two photographs that come with scikit-learn."""
    found = []
    for number in range(count):
        pixels = load_sample_images().images[number % 2]
        rng = np.random.default_rng(number)
        left, top = rng.integers(0, 160), rng.integers(0, 100)
        cut = Image.fromarray(pixels).crop((left, top, left + 480, top + 320)).resize((640, 427))
        path = folder / f"{number:05d}.jpg"
        (cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 4 > 1 else cut).save(path, quality=90)
        found.append(ImageRecord(path, path.name, path.stem, None, 640, 427, ""))
    return found


def parts(images: list[ImageRecord], encoder: Encoder, folder: Path, size: int) -> dict[str, float]:
    """Milliseconds an image of each step but the encoder's, on one core."""

    def timed(work: Callable[[ImageRecord], object]) -> float:
        work(images[0])
        clock = time.thread_time()
        for image in images:
            work(image)
        return 1e3 * (time.thread_time() - clock) / len(images)

    def decode(image: ImageRecord) -> None:
        with decoded_image(image.path):
            pass

    opened = {image.path: Image.open(image.path).convert("RGB") for image in images}
    return {
        "decode": timed(decode),
        "resize": timed(lambda image: to_tensor([opened[image.path]], encoder.spec)),
        "thumbnail": timed(lambda image: save_thumbnail(opened[image.path].copy(), size, folder, 0)),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("--images", type=int, default=256)
    arguments.add_argument("--encoder", default=str(ENCODER), help="folder or hub id")
    arguments.add_argument("--batch", type=int, default=EncoderConfig("").batch)
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    quieten_libraries()
    config = EncoderConfig(options.encoder, batch=options.batch, dtype=options.dtype, device=options.device)
    encoder, size = Encoder.from_pretrained(config), ThumbnailConfig().size
    seconds: dict[str, list[float]] = {"bare": [], "end_to_end": []}
    cores: dict[str, list[float]] = {"bare": [], "end_to_end": []}
    with tempfile.TemporaryDirectory() as base:
        images = photographs(Path(base), options.images)
        batch = to_tensor([Image.open(image.path).convert("RGB") for image in images[: options.batch]], encoder.spec)

        def bare() -> None:
            with torch.inference_mode():
                for start in range(0, len(images), options.batch):
                    encoder(batch[: len(images) - start]).flat().cpu()

        def end_to_end() -> None:
            encode(config, images, MOST_PIXELS, Path(base) / "stage", _silent, size)
            shutil.rmtree(Path(base) / "stage")

        encode(config, images[:2], MOST_PIXELS, Path(base) / "warm", _silent, size)
        for _ in range(options.rounds):
            for work in (bare, end_to_end):
                clock, used = time.perf_counter(), time.process_time()
                work()
                cores[work.__name__].append(time.process_time() - used)
                seconds[work.__name__].append(time.perf_counter() - clock)
        found = parts(images[:TIMED], encoder, Path(base), size)
    core_ms = {name: round(1e3 * min(found) / len(images), 1) for name, found in cores.items()}
    rates = {name: round(len(images) / min(found), 2) for name, found in seconds.items()}
    report = {
        "encoder": encoder.spec.id, "images": options.images, "batch": options.batch, "device": str(encoder.device),
        "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 1), "images_per_second": rates,
        "share": round(rates["end_to_end"] / rates["bare"], 3),
        "core_ms": core_ms, "share_of_cores": round(core_ms["bare"] / core_ms["end_to_end"], 3),
        "parts": {name: round(value, 1) for name, value in found.items()},
    }  # fmt: skip
    print(json.dumps(report, indent=2 if options.json else None))


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    main()
