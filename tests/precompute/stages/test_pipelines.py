"""Pipelines of every kind draw, or say in a sentence why not; images that they did not make are left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.atlas.reader import Atlas
from engine.atlas.verify import verify
from engine.errors import BlindspotError
from engine.pipelines import drawing
from engine.pipelines.loading import replaced_scheduler
from precompute.recipe import Pipeline
from precompute.stages import generate as generating
from precompute.stages.corpus import read_manifest, read_skipped
from precompute.stages.generate import Prompt, condition_of, count_truncated, draw, generate, load_pipeline
from tests.engine.priors.tiny import tiny_dit_pipeline, tiny_pipeline, tiny_pixel_pipeline
from tests.precompute.materials import save_images, save_recipe

PROMPTS = [Prompt(position, text) for position, text in enumerate(["a ball", "b box", "so " * 40])]


def block(folder: Path, **fields) -> Pipeline:
    return Pipeline(pipeline=str(folder), steps=2, batch=3, device="cpu", **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture(scope="module")
def pipeline(folder: Path):
    return load_pipeline(block(folder))


def run(source: Pipeline, folder: Path, prompts=PROMPTS) -> dict[str, int]:
    folder.mkdir(parents=True, exist_ok=True)
    return generate(source, prompts, folder, lambda done, total: None)


def test_images_are_those_that_the_pipeline_itself_gives(pipeline, folder: Path):
    ours = draw(pipeline, block(folder), PROMPTS[:2])
    generators = [torch.Generator().manual_seed(drawing.image_seed(0, position)) for position in (0, 1)]
    theirs = pipeline(["a ball", "b box"], num_inference_steps=2, guidance_scale=7.5, generator=generators).images
    for one, other in zip(ours, theirs, strict=True):
        assert one.left_out == "" and np.array_equal(np.asarray(one.image), np.asarray(other))


def test_captions_that_the_tokenizer_cuts_are_counted(pipeline):
    assert count_truncated(pipeline, block(Path("x")), PROMPTS) == 1


def test_a_pipeline_without_prompts_draws_as_many_images_and_gives_them_no_caption(tmp_path: Path):
    source = block(tiny_pixel_pipeline(tmp_path / "ddpm"))
    assert condition_of(source) == ""
    assert run(source, tmp_path / "m", [Prompt(position, "") for position in range(3)])["images"] == 3
    assert [image.caption for image in read_manifest(tmp_path / "m")] == [None] * 3


def test_a_class_conditional_pipeline_draws_captions_that_name_a_class(tmp_path: Path):
    source = block(tiny_dit_pipeline(tmp_path / "dit"))
    assert condition_of(source) == "class_labels"
    assert run(source, tmp_path / "m", [Prompt(0, "7"), Prompt(1, " 999 ")])["images"] == 2
    loaded = load_pipeline(source)
    loaded.labels = {"tench": 0, "goldfish": 1}
    assert drawing.class_labels(loaded, [Prompt(0, "Goldfish"), Prompt(1, "3")]) == [1, 3]
    for text in ("a red ball", "1000", "-1", "²"):
        with pytest.raises(BlindspotError, match=r"draws classes 0 to 999.*is none"):
            draw(loaded, source, [Prompt(0, text)])


@pytest.mark.parametrize("kind", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"])
def test_a_pipeline_that_wants_an_image_is_said_in_a_sentence(kind: str, pipeline, folder: Path):
    import diffusers

    parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
    made = getattr(diffusers, kind)(**parts, requires_safety_checker=False)
    with pytest.raises(BlindspotError, match=f"A {kind} cannot draw .*it takes an image") as caught:
        draw(made, block(folder), PROMPTS[:1])
    assert "\n" not in str(caught.value)


def test_a_scheduler_of_another_kind_is_said_in_a_sentence(folder: Path, pipeline):
    with pytest.raises(BlindspotError, match="FlowMatchEulerDiscreteScheduler is for flow matching, unlike DDIM"):
        load_pipeline(block(folder, scheduler="FlowMatchEulerDiscreteScheduler"))
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    own = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(BlindspotError, match="DDIMScheduler is not for flow matching"):
        replaced_scheduler(own, "DDIMScheduler", FluxPipeline)
    assert replaced_scheduler(own, "FlowMatchHeunDiscreteScheduler", FluxPipeline) is not None
    for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        assert draw(load_pipeline(block(folder, scheduler=name)), block(folder), PROMPTS[:1])[0].left_out == ""
    for name in ("KarrasVeScheduler", "ScoreSdeVeScheduler", "EDMEulerScheduler", "VQDiffusionScheduler"):
        try:
            draw(load_pipeline(block(folder, scheduler=name)), block(folder), PROMPTS[:1])
        except BlindspotError as error:
            assert "\n" not in str(error)


def broken(pipeline, where: str, value: float, image: int, count: int):
    """A hook by which a network of the pipeline gives one broken number for one of `count` images."""
    network = pipeline.vae.decoder if where == "decoder" else pipeline.unet

    def hook(_, __, output):
        found = output if isinstance(output, torch.Tensor) else output[0]
        found[image::count][-1].view(-1)[0] = value
        return output

    handle = network.register_forward_hook(hook)
    network._forward_hooks.move_to_end(handle.id, last=False)
    return handle


@pytest.mark.parametrize("where", ["decoder", "unet"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_image_with_a_number_that_is_not_finite_is_left_out_alone(where, value, pipeline, folder: Path):
    handle = broken(pipeline, where, value, 1, 3)
    try:
        drawn = draw(pipeline, block(folder), PROMPTS)
    finally:
        handle.remove()
    assert [one.left_out for one in drawn] == ["", "not finite", ""]


def test_images_left_out_are_counted_and_their_pairs_with_them(tmp_path: Path, pipeline, folder: Path, monkeypatch):
    calls = []

    def fake(pipeline, source, prompts):
        calls.append(len(prompts))
        reasons = {0: "", 1: "not finite", 2: "safety filter"}
        return [drawing.Drawn(Image.new("RGB", (8, 8)), reasons[prompt.position]) for prompt in prompts]

    monkeypatch.setattr(drawing, "draw", fake)
    monkeypatch.setattr(generating, "load_pipeline", lambda source: pipeline)
    where = tmp_path / "generate" / "m"
    assert run(block(folder), where) == {"images": 1, "skipped": 2, "truncated": 1}
    assert [image.stem for image in read_manifest(where)] == ["0000000"]
    skipped = [(one.file, one.stem, one.kind) for one in read_skipped(where)]
    assert skipped == [
        ("generate/m/images/0000001.png", "0000001", "not finite"),
        ("generate/m/images/0000002.png", "0000002", "safety filter"),
    ]
    run(block(folder), where)
    assert calls == [3]
    with pytest.raises(BlindspotError, match=r"None of the 2 images .* can be used"):
        run(block(folder), tmp_path / "none", PROMPTS[1:])
    with pytest.raises(BlindspotError, match="its safety filter replaced them"):
        run(block(folder), tmp_path / "filtered", PROMPTS[2:])


@pytest.mark.parametrize("flag", drawing.FLAGS)
def test_images_that_a_safety_filter_blackened_are_left_out(flag: str, folder: Path):
    class Filtering:
        def __call__(self, prompt, generator, num_inference_steps, output_type):
            return SimpleNamespace(images=np.zeros((len(prompt), 4, 4, 3), np.float32), **{flag: [False, True]})

    assert [one.left_out for one in draw(Filtering(), block(folder), PROMPTS[:2])] == ["", "safety filter"]


def test_whatever_a_pipeline_raises_becomes_one_sentence(folder: Path):
    class Odd:
        def __init__(self, answer):
            self.answer = answer

        def __call__(self, prompt, **others):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    answers = [RuntimeError("two\nlines"), KeyError(), ValueError(""), SimpleNamespace(frames=[]), (1, 2)]
    for answer in [*answers, SimpleNamespace(images=[])]:
        with pytest.raises(BlindspotError, match=r"An? Odd cannot draw images from captions") as caught:
            draw(Odd(answer), block(folder), PROMPTS[:1])
        assert "\n" not in str(caught.value)
    with pytest.raises(BlindspotError, match="runs out of memory at one image: lower its height and width"):
        draw(Odd(torch.OutOfMemoryError("no")), block(folder), PROMPTS[:1])


def test_a_run_ends_before_the_encoding_if_a_model_cannot_draw(
    tmp_path: Path, encoder_folder: Path, pipeline, run_command
):
    save_images(tmp_path / "real", range(6))
    networks = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
    made = type(pipeline)(**networks, requires_safety_checker=False)
    before = made.vae.decoder.state_dict()["layers.0.weight"].clone()
    made.vae.decoder.state_dict()["layers.0.weight"].fill_(float("nan"))
    made.save_pretrained(tmp_path / "nan")
    made.vae.decoder.state_dict()["layers.0.weight"].copy_(before)
    recipe = save_recipe(tmp_path / "r.yaml", real="real", models={"m": {"pipeline": "nan", "steps": 2}})
    code, _, err = run_command("run", recipe, "--set", f"encoder.id={encoder_folder}", "--out", tmp_path / "atlas")
    assert code == 1 and "None of the 3 images that" in err.replace("\n", " ") and "Traceback" not in err
    assert not (tmp_path / "atlas.work" / "encode").exists() and not (tmp_path / "atlas").exists()


def test_an_atlas_of_a_pipeline_without_prompts_has_no_pairs(tmp_path: Path, encoder_folder: Path, run_command):
    save_images(tmp_path / "real", range(6), captions=None)
    tiny_pixel_pipeline(tmp_path / "ddpm")
    recipe = save_recipe(tmp_path / "r.yaml", real="real", models={"m": {"pipeline": "ddpm", "steps": 2}})
    code, _, err = run_command("run", recipe, "--set", f"encoder.id={encoder_folder}", "--out", tmp_path / "atlas")
    assert code == 0, err
    source = Atlas.open(tmp_path / "atlas").info.source("m")
    assert (source.images, source.paired, source.pairing) == (6, False, "none") and verify(tmp_path / "atlas") == []
