"""Pipelines draw each caption with a seed of its own, batch by batch, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import BlindspotError
from engine.pipelines.drawing import image_seed
from engine.pipelines.loading import scheduler_class
from precompute.recipe import Pipeline
from precompute.stages.corpus import ImageRecord, read_manifest
from precompute.stages.generate import Prompt, generate, prompts_of

PROMPTS = [Prompt(position, f"a {colour} ball") for position, colour in ((0, "red"), (1, "blue"), (3, "green"))]


def drawn(folder: Path, pipeline: Path, batch: int, prompts: list[Prompt] = PROMPTS) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    source = Pipeline(pipeline=str(pipeline), steps=2, guidance=3, seed=7, batch=batch, device="cpu")
    generate(source, prompts, folder, lambda done, total: None)
    return [np.asarray(Image.open(picture.path), dtype=int) for picture in read_manifest(folder)]


def test_an_image_does_not_depend_on_its_batch(tmp_path: Path, pipeline_folder: Path):
    together = drawn(tmp_path / "a", pipeline_folder, batch=3)
    alone = drawn(tmp_path / "b", pipeline_folder, batch=1)
    other = drawn(tmp_path / "c", pipeline_folder, batch=2, prompts=PROMPTS[1:])
    for one, two in (*zip(together, alone, strict=True), *zip(together[1:], other, strict=True)):
        assert np.abs(one - two).max() <= 1
    assert np.abs(together[0] - together[1]).max() > 1


def test_images_that_are_there_are_kept_and_the_rest_comes_out_the_same(tmp_path: Path, pipeline_folder: Path):
    before = drawn(tmp_path / "a", pipeline_folder, batch=2)
    first, last = (tmp_path / "a" / "images" / f"000000{n}.png" for n in (0, 3))
    Image.new("RGB", (16, 16)).save(first)
    last.unlink()
    after = drawn(tmp_path / "a", pipeline_folder, batch=2)
    assert after[0].max() == 0 and (after[2] == before[2]).all()


def test_the_list_names_the_real_image_that_each_belongs_to(tmp_path: Path, pipeline_folder: Path):
    drawn(tmp_path / "generate" / "m", pipeline_folder, batch=3)
    found = read_manifest(tmp_path / "generate" / "m")
    assert [int(picture.stem) for picture in found] == [0, 1, 3]
    assert found[2].caption == "a green ball" and found[2].file == "generate/m/images/0000003.png"


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_weights_stored_in_half_precision_draw_in_the_precision_of_the_recipe(
    tmp_path: Path, pipeline_folder: Path, variant: str | None
):
    import torch
    from diffusers import DiffusionPipeline

    half = DiffusionPipeline.from_pretrained(pipeline_folder, torch_dtype=torch.float16)
    half.save_pretrained(tmp_path / "half", variant=variant)
    assert len(drawn(tmp_path / "a", tmp_path / "half", batch=3)) == 3


def test_seeds_do_not_collide():
    assert len({image_seed(seed, position) for seed in range(50) for position in range(50)}) == 2500


def test_without_captions_there_is_nothing_to_draw():
    picture = ImageRecord(Path("a"), "a", "a", None, 8, 8, "")
    with pytest.raises(BlindspotError, match=r"models.sd draws from the captions .* none of the 2 has one"):
        prompts_of([picture, picture], "sd")


def test_what_is_no_pipeline_is_said_in_a_sentence(tmp_path: Path):
    with pytest.raises(BlindspotError, match=r"cannot be loaded .*; give a folder in diffusers' format") as caught:
        drawn(tmp_path / "a", tmp_path, batch=1)
    assert "\n" not in str(caught.value)


def test_a_scheduler_is_found_by_name():
    assert scheduler_class("DDIMScheduler").__name__ == "DDIMScheduler"
    with pytest.raises(BlindspotError, match="no scheduler called DDIMShceduler; did you mean DDIMScheduler"):
        scheduler_class("DDIMShceduler")
