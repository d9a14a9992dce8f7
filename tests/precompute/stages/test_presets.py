"""Every preset's real pipeline class, tiny and random: loads from a folder, draws, is stopped, goes on; recipe keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from engine.errors import BlindspotError
from engine.pipelines.drawing import BatchDrawer, draw
from engine.pipelines.loading import check_pipeline, load_pipeline
from precompute.recipe import Pipeline, load_recipe, presets
from precompute.stages.corpus import read_manifest
from precompute.stages.generate import Prompt, drawing_inputs, generate
from tests.precompute.generators import save_single_file
from tests.precompute.materials import save_recipe

CLASSES = {
    "sd-1-5": "StableDiffusionPipeline",
    "sd-1-5-dpo": "StableDiffusionPipeline",
    "sd-2-1": "StableDiffusionPipeline",
    "pixart": "PixArtAlphaPipeline",
    "kandinsky": "KandinskyCombinedPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd-3-5": "StableDiffusion3Pipeline",
    "flux-schnell": "FluxPipeline",
    "sana": "SanaPipeline",
    "qwen-image": "QwenImagePipeline",
}
PROMPTS = [Prompt(position, text) for position, text in enumerate(("a ball", "b box", "so it is", "d"))]
TOLERANCE = 1
"""Of 255 levels: in float32 a batch of another size is summed in another order."""


class Stopped(BaseException):
    """What ends a run in its middle."""


def preset(name: str, folder: Callable[[str], Path], where: Path, **more: object) -> Pipeline:
    """A preset with folders for its ids, one or two steps and small images, read as a recipe."""
    block: dict = {"preset": name, "pipeline": str(folder("sd-1-5" if name == "sd-1-5-dpo" else name))}
    block |= {"unet": str(folder("dpo"))} if name == "sd-1-5-dpo" else {}
    block |= {"call": {"use_resolution_binning": False}} if name == "sana" else {}
    block |= {"steps": 2, "height": 32, "width": 32, "dtype": "float32", "variant": None, "batch": 3, "device": "cpu"}
    recipe = save_recipe(where / "r.yaml", real="real", models={"m": block | more})
    return load_recipe(recipe).models["m"]


def drawn(source: Pipeline, folder: Path, prompts: list[Prompt] = PROMPTS, stop: bool = False) -> list[np.ndarray]:
    def progress(done: int, total: int) -> None:
        if stop and done:
            raise Stopped

    folder.mkdir(parents=True, exist_ok=True)
    generate(source, prompts, folder, progress)
    return [np.asarray(Image.open(image.path), dtype=int) for image in read_manifest(folder)]


def test_presets_are_the_models_of_the_paper_and_current_ones():
    assert set(presets()) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_preset_draws_from_a_folder_is_stopped_goes_on_and_draws_the_same_alone(
    name: str, generator_folder: Callable[[str], Path], tmp_path: Path
):
    source = preset(name, generator_folder, tmp_path)
    check_pipeline(source)
    with pytest.raises(Stopped):
        drawn(source, tmp_path / "a", stop=True)
    assert len(list((tmp_path / "a" / "images").iterdir())) == 3
    images = drawn(source, tmp_path / "a")
    assert len(images) == 4 and images[0].shape == (32, 32, 3)
    pipeline = load_pipeline(source)
    assert type(pipeline).__name__ == CLASSES[name]
    alone = np.asarray(draw(pipeline, source, PROMPTS[1:2])[0].image, dtype=int)
    assert np.abs(alone - images[1]).max() <= TOLERANCE
    assert np.abs(images[0] - images[1]).max() > TOLERANCE


def test_a_t5_tokenizer_is_read_from_its_sentencepiece_model(generator_folder: Callable[[str], Path]):
    tokenizer = generator_folder("pixart") / "tokenizer"
    assert (tokenizer / "spiece.model").is_file() and not (tokenizer / "tokenizer.json").exists()


def one(source: Pipeline) -> np.ndarray:
    return np.asarray(draw(load_pipeline(source), source, PROMPTS[:1])[0].image, dtype=int)


@pytest.fixture
def sd(generator_folder: Callable[[str], Path], tmp_path: Path) -> Pipeline:
    return preset("sd-1-5", generator_folder, tmp_path)


def test_a_unet_replaces_the_pipelines_own_and_one_of_another_shape_is_refused(
    sd: Pipeline, generator_folder: Callable[[str], Path], tmp_path: Path
):
    tuned = sd.model_copy(update={"unet": str(generator_folder("dpo"))})
    pipeline = load_pipeline(sd)
    pipeline.unet = type(pipeline.unet).from_pretrained(generator_folder("dpo"), subfolder="unet")
    assert np.array_equal(one(tuned), np.asarray(draw(pipeline, sd, PROMPTS[:1])[0].image))
    assert np.abs(one(tuned) - one(sd)).max() > TOLERANCE
    assert drawing_inputs("models.m", tuned)[1] == (Path(sd.pipeline), generator_folder("dpo"))
    xl = sd.model_copy(update={"unet": str(generator_folder("sdxl"))})
    with pytest.raises(BlindspotError, match=r"has cross_attention_dim 16, but the unet of .* has 8"):
        check_pipeline(xl)


def test_lora_adapters_add_by_their_scale_and_learned_words_are_read(sd: Pipeline, tmp_path: Path):
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig, get_peft_model_state_dict

    unet = load_pipeline(sd).unet
    torch.manual_seed(2)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "to_out.0"], init_lora_weights=False))
    StableDiffusionPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(unet))
    block = {"id": str(tmp_path / "lora"), "scale": 0.0}
    none, full = (Pipeline.model_validate(sd.model_dump() | {"lora": one}) for one in (block, [block | {"scale": 8.0}]))
    assert np.abs(one(none) - one(sd)).max() <= TOLERANCE < np.abs(one(full) - one(sd)).max()
    save_file({"<toy>": 5 * torch.randn(8)}, tmp_path / "toy.safetensors")
    word = Pipeline.model_validate(sd.model_dump() | {"textual_inversion": str(tmp_path / "toy.safetensors")})
    pipeline = load_pipeline(word)
    toy, other = (draw(pipeline, word, [Prompt(0, text)])[0].image for text in ("<toy>", "toy"))
    assert np.abs(np.asarray(toy, int) - np.asarray(other, int)).max() > TOLERANCE
    save_file({"nothing": torch.zeros(1)}, tmp_path / "odd.safetensors")
    odd = Pipeline.model_validate(sd.model_dump() | {"lora": str(tmp_path / "odd.safetensors")})
    with pytest.raises(BlindspotError) as caught:
        load_pipeline(odd)
    assert "odd.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_a_single_file_draws_what_its_folder_draws_and_needs_the_configs_of_such_a_model(sd: Pipeline, tmp_path: Path):
    file = save_single_file(Path(sd.pipeline), tmp_path / "one.safetensors")
    single = sd.model_copy(update={"pipeline": str(file), "config": sd.pipeline})
    check_pipeline(single)
    assert np.array_equal(one(single), one(sd))
    assert drawing_inputs("models.m", single)[1] == (file, Path(sd.pipeline))
    with pytest.raises(BlindspotError, match=r"one\.safetensors cannot be loaded \("):
        check_pipeline(single.model_copy(update={"config": None}))


def test_a_negative_prompt_a_scheduler_and_further_arguments_reach_the_call(sd: Pipeline):
    plain = one(sd)
    for change in ({"negative_prompt": "b box"}, {"scheduler": "DDPMScheduler"}, {"call": {"eta": 1.0}}):
        assert np.abs(one(sd.model_copy(update=change)) - plain).max() > TOLERANCE


def test_a_batch_is_halved_when_memory_runs_out_and_the_images_stay_the_same(sd: Pipeline):
    pipeline = load_pipeline(sd)
    whole = draw(pipeline, sd, PROMPTS[:3])
    sizes = []

    def short_of_memory(network, arguments):
        sizes.append(len(arguments[0]) // 2)  # guidance: each image twice
        if len(arguments[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    handle = pipeline.unet.register_forward_pre_hook(short_of_memory)
    drawer = BatchDrawer(pipeline, sd)
    made = list(drawer(PROMPTS[:3]))
    handle.remove()
    assert drawer.batch == 1 and sizes == [3, 1, 1, 1, 1, 1, 1]
    for image, other in zip(made, whole, strict=True):
        assert np.abs(np.asarray(image.image, int) - np.asarray(other.image, int)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("sd-1-5", {"call": {"clip_skp": 1}}, "takes no clip_skp; did you mean clip_skip"),
        ("sd-1-5", {"pipeline_class": "StableDiffusionPipelin"}, "did you mean StableDiffusionPipeline"),
        ("flux-schnell", {"scheduler": "DDIMScheduler"}, "DDIMScheduler is not for flow matching"),
        ("sd-1-5", {"scheduler": "DPMSolverSDEScheduler"}, "needs the package torchsde, which is not installed"),
        ("sd-1-5", {"lora": "x/y"}, "needs the package peft"),
        ("kandinsky", {"lora": "x/y"}, "A KandinskyCombinedPipeline takes no lora"),
        ("kandinsky", {"pipeline_class": "KandinskyPipeline"}, "it needs image embeddings, which captions are not"),
        ("sana", {"unet": "x/y"}, "The pipeline x/y cannot be loaded"),
    ],
)
def test_what_configs_show_to_be_wrong_is_one_sentence_before_weights_are_read(
    name: str, change: dict, words: str, generator_folder: Callable[[str], Path], tmp_path: Path, monkeypatch
):
    from diffusers import schedulers
    from diffusers.utils import dummy_torch_and_torchsde_objects as absent

    from engine.pipelines import loading

    monkeypatch.setattr(loading, "find_spec", lambda package: None if package in ("peft", "torchsde") else package)
    monkeypatch.setattr(schedulers, "DPMSolverSDEScheduler", absent.DPMSolverSDEScheduler)
    monkeypatch.setattr(loading.torch, "load", None)
    with pytest.raises(BlindspotError) as caught:
        check_pipeline(preset(name, generator_folder, tmp_path, **change))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_keys_that_say_nothing_leave_fingerprints_and_headers_as_they_were(sd: Pipeline):
    plain = Pipeline(pipeline=sd.pipeline)
    settings = {"revision": None, "steps": 50, "guidance": 7.5, "scheduler": None, "seed": 0, "dtype": "float32"}
    assert drawing_inputs("models.m", plain) == (settings, (Path(sd.pipeline),))
    assert plain.to_dict() == settings | {"pipeline": sd.pipeline, "batch": 8}
