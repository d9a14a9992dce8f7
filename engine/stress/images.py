"""Images that models draw when they are asked, with their concept energies; each is kept on disk, so that runs resume.

Image k of a prompt depends on the model, the prompt, k and the seed alone: any part of a test gives the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from engine.atlas.reader import Atlas
from engine.errors import BlindspotError
from engine.files import read_arrays, write_arrays, write_whole
from engine.hub import agreed_model
from engine.jobs import job_id
from engine.pipelines.drawing import BatchDrawer, Prompt
from engine.pipelines.loading import condition_of, load_pipeline
from engine.pipelines.spec import PipelineSpec
from engine.samplers.models import ModelBundle
from engine.vision.preprocess import to_tensor

CHUNK = 16
"""Images encoded at once."""

OnBatch = Callable[[int, list[Image.Image]], None]
"""Called with the number of images that are done now, and with the new ones of them."""


class AskedImage(NamedTuple):
    """One image that a model drew for a prompt."""

    prompt: str
    number: int
    """Among the prompt's images, from 0."""
    path: Path
    """PNG."""
    energies: dict[int, float]
    """Image energy by concept, those above zero."""

    def picture(self) -> Image.Image:
        """The image, RGB."""
        with Image.open(self.path, formats=["PNG"]) as image:
            return image.convert("RGB")


def pipelines_in(atlas: Atlas) -> dict[str, PipelineSpec]:
    """The pipelines that an atlas's header names and that may be loaded here (`engine.hub.agreed_model`).

    Raises
    ------
    BlindspotError
        If one may not, or is not there.
    """
    found = {}
    for name, block in atlas.info.pipelines.items():
        if name not in atlas.models:
            continue
        spec = PipelineSpec.from_dict(block, f"The pipeline of {name!r} in atlas {atlas.info.called}")

        def agreed(key: str, ref: str, spec: PipelineSpec = spec) -> str:
            revision = spec.revision if key == "pipeline" else None
            return str(agreed_model(atlas.resolve(ref, files=True), ref, atlas.path, revision))

        found[name] = spec.with_models(agreed)
    return found


def images_folder(work: Path, model: str, spec: PipelineSpec, atlas: Atlas) -> Path:
    """Where a model's images are kept: another folder for other settings, another dictionary or another encoder."""
    info = atlas.info
    settings = {**spec.to_dict(), "batch": None, "encoder": info.encoder, "dictionary": info.files.get(WEIGHTS)}
    return work / f"{model}-{job_id(settings)}"


WEIGHTS = "dictionary/dictionary.safetensors"


def _stem(prompt: str, number: int) -> str:
    return f"{hashlib.sha256(prompt.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}-{number:02d}"


def _position(prompt: str, number: int) -> int:
    """What seeds an image together with the test's seed."""
    return int.from_bytes(hashlib.sha256(f"{number} {prompt}".encode("utf-8", "surrogatepass")).digest()[:8])


def ask(
    models: ModelBundle, spec: PipelineSpec, prompts: Sequence[str], per_prompt: int, folder: Path, on_batch: OnBatch
) -> list[AskedImage]:
    """Draw images for prompts and encode them; those that are in `folder` are kept.

    Batches are cut from the whole list, first one image of every prompt, then the second, so that an interrupted run
    draws the same ones as an undisturbed one, and a run that asks for more images of a prompt only adds some. Images
    that the pipeline did not make (`engine.pipelines.drawing`) are left out.

    Raises
    ------
    BlindspotError
        If the pipeline cannot be loaded or takes no prompts.
    """
    wanted = [(prompt, number) for number in range(per_prompt) for prompt in prompts]
    drawer: BatchDrawer | None = None
    for start in range(0, len(wanted), spec.batch):
        batch = wanted[start : start + spec.batch]
        files = [folder / _stem(*one) for one in batch]
        fresh: list[Image.Image] = []
        if not all(_marks(file)[0].exists() or _marks(file)[1].exists() for file in files):
            drawer = drawer or BatchDrawer(_loaded(spec), spec)
            drawn = drawer([Prompt(_position(*one), one[0]) for one in batch])
            pairs = list(zip(files, drawn, strict=True))
            for file, one in pairs:
                if one.left_out:
                    write_whole(_marks(file)[1], partial(Path.write_text, data=one.left_out))
            made = [(file, one.image.convert("RGB")) for file, one in pairs if not one.left_out]
            fresh = [image for _, image in made]
            for (file, image), row in zip(made, energies_of(models, fresh), strict=True):
                write_whole(file.with_suffix(".png"), partial(image.save, format="PNG"))
                concepts = np.flatnonzero(row)
                write_arrays(_marks(file)[0], concepts=concepts.astype(np.int32), energies=row[concepts])
        on_batch(len(batch), fresh)
    stored = (_stored(folder, *one) for one in wanted)
    return [one for one in stored if one is not None]


def _marks(file: Path) -> tuple[Path, Path]:
    """What says that an image is done: its energies, or why it is left out."""
    return file.with_suffix(".npz"), file.with_suffix(".txt")


def _loaded(spec: PipelineSpec) -> object:
    pipeline = load_pipeline(spec)
    if condition_of(pipeline) != "prompt":
        raise BlindspotError(f"{spec.pipeline} takes no prompts, so nothing can be asked of it.")
    return pipeline


def _stored(folder: Path, prompt: str, number: int) -> AskedImage | None:
    file = folder / _stem(prompt, number)
    energies = _marks(file)[0]
    if not energies.exists():
        return None
    found = read_arrays(energies)
    return AskedImage(
        prompt, number, file.with_suffix(".png"),
        dict(zip(found["concepts"].tolist(), found["energies"].tolist(), strict=True)),
    )  # fmt: skip


@torch.inference_mode()
def energies_of(models: ModelBundle, images: Sequence[Image.Image]) -> Float[np.ndarray, "images concepts"]:
    """Image energies of all concepts: the sum of codes over all tokens, as the atlas stores them."""
    encoder, dictionary = models.encoder, models.dictionary
    parts = []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        tokens = encoder(torch.cat([to_tensor([image], encoder.spec) for image in part])).flat()
        codes = dictionary.encode(tokens.flatten(0, 1).float())
        shape = (len(part), -1)
        energies = torch.zeros(len(part), dictionary.concepts, device=tokens.device)
        energies.scatter_add_(1, codes.indices.reshape(shape), codes.values.float().reshape(shape))
        parts.append(energies.cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, dictionary.concepts), np.float32)
