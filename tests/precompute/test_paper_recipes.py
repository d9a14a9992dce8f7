"""The papers' own recipes, at toy size: they run to an atlas that verifies, opens and keeps what the papers fixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, DINOv3ConvNextConfig, DINOv3ConvNextModel
from typer.testing import CliRunner

from engine.atlas.reader import Atlas
from engine.dictionary.archetypal import RelaxedArchetypal
from engine.dictionary.base import Dictionary
from engine.dictionary.topk import TopK
from engine.dictionary.transcoder import Transcoder
from precompute.cli import app
from precompute.plan import count_images
from precompute.recipe import load_recipe
from tests.precompute.materials import save_images

RECIPES = Path(__file__).parents[2] / "data" / "recipes"
IMAGES = 8


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of images, and the papers' two kinds of encoder with few channels and random weights."""
    base = tmp_path_factory.mktemp("papers")
    save_images(base / "real", range(IMAGES))
    save_images(base / "mine", range(IMAGES), shift=1)
    torch.manual_seed(0)
    dino = Dinov2WithRegistersConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=518)
    dino.patch_size = 14
    Dinov2WithRegistersModel(dino).save_pretrained(base / "dino")
    convnext = DINOv3ConvNextConfig(hidden_sizes=[4, 8, 12, 16], depths=[1, 1, 21, 1])
    DINOv3ConvNextModel(convnext).save_pretrained(base / "convnext")
    return base


def made(inputs: Path, recipe: str, *settings: str) -> Atlas:
    """The atlas of a recipe run and verified by the command line."""
    out = inputs / recipe
    given = [f"real={inputs / 'real'}", f"models.mine={inputs / 'mine'}", "encoder.batch=4", "layout.clusters=3"]
    given += ["dictionary.batch=512", "encoder.dtype=float32", *settings]
    arguments = ["run", str(RECIPES / f"{recipe}.yaml"), "--out", str(out)]
    for setting in given:
        arguments += ["--set", setting]
    for command in (arguments, ["verify", str(out)]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
    return Atlas.open(out)


def test_an_rasae_on_all_tokens_of_dinov2(inputs: Path) -> None:
    atlas = made(
        inputs,
        "rasae-dinov2-32k",
        f"encoder.id={inputs / 'dino'}",
        "dictionary.concepts=24",
        "dictionary.candidates=24",
        "dictionary.epochs=2",
    )
    dictionary = Dictionary.from_pretrained(inputs / "rasae-dinov2-32k" / "dictionary")
    assert isinstance(dictionary, RelaxedArchetypal)
    assert dictionary.settings() == {"dim": 16, "concepts": 24, "sparsity": 5, "candidates": 24, "delta": 1.0}
    indptr = np.load(inputs / "rasae-dinov2-32k" / "codes" / "real" / "indptr.npy")
    assert len(indptr) - 1 == IMAGES * 261
    assert atlas.models == ["mine"] and atlas.heatmap(0, 0).shape == (16, 16)
    assert np.isfinite(atlas.delta("mine")["delta"]).all()


def test_the_study_of_the_paper_with_other_ids_sizes_and_counts_alone(
    inputs: Path, generator_folder: Callable[[str], Path], run_command: Callable
) -> None:
    """Five real pipeline classes; the settings of appendix D.2 are those of the atlas's header."""
    TopK(16, 24, 5).save_pretrained(inputs / "published")
    ids = {"models.sd-1-5-dpo.unet": generator_folder("dpo"), "prior.id": generator_folder("sd-1-5")}
    ids |= {"encoder.id": inputs / "dino", "dictionary.load": inputs / "published", "real": inputs / "real"}
    counts = {"limits.images": IMAGES, "layout.clusters": 3}
    for name in ("sd-1-5", "sd-1-5-dpo", "sd-2-1", "pixart", "kandinsky"):
        ids[f"models.{name}.pipeline"] = generator_folder(name.removesuffix("-dpo"))
        sizes = {"steps": 2, "height": 32, "width": 32, "dtype": "float32"}
        counts |= {f"models.{name}.{key}": value for key, value in sizes.items()}
    words = [word for key, value in (ids | counts).items() for word in ("--set", f"{key}={value}")]
    code, said, err = run_command("run", RECIPES / "paper.yaml", *words, "--out", inputs / "paper", "--json")
    assert code == 0, err
    assert {source["images"] for source in json.loads(said)["sources"]} == {IMAGES}
    atlas = Atlas.open(inputs / "paper")
    assert run_command("verify", inputs / "paper")[0] == 0
    assert atlas.models == ["sd-1-5", "sd-1-5-dpo", "sd-2-1", "pixart", "kandinsky"]
    assert atlas.info.pipelines["kandinsky"]["guidance"] == 4 and atlas.info.pipelines["sd-1-5-dpo"]["unet"]
    gaps = [atlas.delta(name)["gap"].to_numpy() for name in ("sd-1-5", "sd-1-5-dpo")]
    assert np.isfinite(gaps).all() and not np.allclose(*gaps)


def test_the_paper_s_generators_are_those_of_appendix_d2() -> None:
    models = load_recipe(RECIPES / "paper.yaml", ["real=x"]).models
    found = {name: (one.steps, one.guidance, one.height, one.width, one.dtype) for name, one in models.items()}
    usual = (50, 7.5, 512, 512, "float16")
    assert found == dict.fromkeys(("sd-1-5", "sd-1-5-dpo", "sd-2-1", "pixart"), usual) | {
        "kandinsky": (100, 4.0, 512, 512, "float16")
    }
    assert models["kandinsky"].pipeline.endswith("kandinsky-2-1") and models["pixart"].pipeline.endswith("1024-MS")
    assert models["sd-1-5-dpo"].unet == "mhdang/dpo-sd1.5-text2image-v1"


def test_a_transcoder_on_a_block_of_dinov3_convnext(inputs: Path) -> None:
    atlas = made(
        inputs,
        "transcoder-dinov3",
        f"encoder.id={inputs / 'convnext'}",
        "dictionary.concepts=80",
        "dictionary.epochs=2",
    )
    folder = inputs / "transcoder-dinov3"
    dictionary = Dictionary.from_pretrained(folder / "dictionary")
    assert isinstance(dictionary, Transcoder)
    assert dictionary.settings() == {
        **{"dim": 12, "out_dim": 12, "concepts": 80, "sparsity": 64},
        **{"grid": [16, 16], "kernel": 3},
    }
    encoder = json.loads((folder / "atlas.json").read_text())["encoder"]
    assert encoder["hook"] == "model.stages.2.layers.20" and encoder["prefix_tokens"] == 0
    assert atlas.models == ["mine"] and atlas.heatmap(0, 0).shape == (16, 16)
    assert np.isfinite(atlas.delta("mine")["delta"]).all()


def test_a_checkpoint_is_compared_with_the_one_it_was_tuned_from(
    inputs: Path, generator_folder: Callable[[str], Path], run_command: Callable
) -> None:
    """No real image: the reference is the first checkpoint's drawing of each line of a text file."""
    (inputs / "captions.txt").write_text("".join(f"a thing number {number}\n\n" for number in range(9)))
    TopK(16, 12, 3).save_pretrained(inputs / "tuned-dictionary")
    settings = {
        "real.captions": inputs / "captions.txt", "real.pipeline": generator_folder("sd-1-5"),
        "models.tuned.pipeline": generator_folder("sd-1-5"), "models.tuned.unet": generator_folder("dpo"),
        "encoder.id": inputs / "dino", "dictionary.load": inputs / "tuned-dictionary", "limits.images": 6,
        "layout.clusters": 2,
    }  # fmt: skip
    for source in ("real", "models.tuned"):
        settings |= {f"{source}.{key}": value for key, value in
                     {"steps": 1, "height": 32, "width": 32, "batch": 4, "dtype": "float32"}.items()}  # fmt: skip
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    recipe, out = RECIPES / "compare-checkpoints.yaml", inputs / "compared"
    assert count_images(load_recipe(recipe, words[1::2]), "real") == 6
    code, _, err = run_command("run", recipe, *words, "--out", out, "--json")
    assert code == 0, err
    images = Atlas.open(out).images
    captions = [images[images["source"] == name]["caption"].tolist() for name in ("real", "tuned")]
    assert captions[0] == captions[1] and len(set(captions[0])) == 6 and (images["pair"] >= 0).all()
    code, _, err = run_command("run", recipe, "--out", out)
    assert code == 1 and "'real.captions' is missing" in err
