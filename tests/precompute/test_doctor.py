"""`doctor` and `run --dry-run` say what a recipe takes and lacks; a run says what is wrong before any model draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.dictionary.topk import TopK
from tests.precompute.materials import save_images, save_recipe

RECIPES = Path(__file__).parents[2] / "data" / "recipes"
SIZE = 32


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path, generator_folder: Callable) -> Path:
    """Six real images, a Stable Diffusion that draws them with guidance, and a Flux."""
    base = tmp_path_factory.mktemp("planned")
    save_images(base / "real", range(6))
    TopK(16, 12, 3).save_pretrained(base / "dictionary")
    TopK(8, 12, 3).save_pretrained(base / "narrow")
    drawn = {"steps": 3, "batch": 2, "height": SIZE, "width": SIZE}
    return save_recipe(
        base / "r.yaml",
        real="real",
        models={
            "sd": {"pipeline": str(generator_folder("sd-1-5")), **drawn},
            "flux": {"pipeline": str(generator_folder("flux-schnell")), "guidance": 0, **drawn},
        },
        encoder={"id": str(encoder_folder)},
        dictionary={"load": str(base / "dictionary")},
        prior={"id": str(generator_folder("sd-1-5"))},
    )


def test_a_dry_run_counts_images_steps_disk_memory_and_hours_and_writes_nothing(recipe: Path, run_command: Callable):
    out = recipe.parent / "atlas"
    code, said, err = run_command("run", recipe, "--out", out, "--dry-run", "--json")
    assert code == 0, err
    found = json.loads(said)
    sd, flux = found["models"]
    assert (found["real_images"], found["images"], sd["images"], sd["steps"]) == (6, 18, 6, 3)
    assert (sd["passes"], flux["passes"], sd["height"], flux["width"]) == (6, 3, SIZE, SIZE)
    assert found["tokens"] == 4 * 4 + 1 + 2
    assert found["disk"]["tokens"] == 18 * found["tokens"] * 16 * 2
    assert found["disk_total"] == sum(found["disk"].values()) < found["disk_free"]
    assert all(value > 0 for value in found["memory"].values()) and found["lacks"] == [] and found["fetch"] == 0
    assert found["hours_total"] == pytest.approx(sum(found["hours"].values())) and sd["hours"] > 0
    weights = Path(sd_folder(recipe)) / "unet" / "diffusion_pytorch_model.safetensors"
    assert sd["weights"] > weights.stat().st_size and sd["parameters"] < sd["weights"] / 4
    assert list(recipe.parent.glob("atlas*")) == []
    text = run_command("run", recipe, "--out", out, "--dry-run")[1]
    assert all(word in text for word in ("6 real, 18 in all", "3 steps, 32 x 32", "Disk:", "Memory:", "Hours:"))


def sd_folder(recipe: Path) -> str:
    from precompute.recipe import load_recipe

    return load_recipe(recipe).models["sd"].pipeline


def test_the_paper_s_plan_is_known_without_its_weights(run_command: Callable, tmp_path: Path):
    save_images(tmp_path / "real", range(3))
    words = ("--set", f"real={tmp_path / 'real'}", "--out", tmp_path / "atlas", "--dry-run", "--json")
    found = json.loads(run_command("run", RECIPES / "paper.yaml", *words)[1])
    assert found["images"] == 18 and found["tokens"] == 261 and found["hours_total"] > 0 and found["disk_total"] > 0
    assert {one["model"]: one["steps"] for one in found["models"]}["kandinsky"] == 100
    assert any("dictionary.load: matybohacek/RA-SAE-DINOv2-32k: not on this machine" in one for one in found["lacks"])


def test_the_doctor_names_packages_devices_and_what_each_recipe_lacks(recipe: Path, run_command: Callable, monkeypatch):
    from engine.pipelines import loading

    lacking = recipe.with_name("lacking.yaml")
    lacking.write_text(
        recipe.read_text().replace("guidance: 0", "lora: someone/style").replace("name: tiny", "name: x")
    )
    monkeypatch.setattr(loading, "find_spec", lambda package: None)
    code, said, err = run_command("doctor", recipe, lacking, "--json")
    assert code == 0, err
    found = json.loads(said)
    assert found["packages"]["torch"] and found["devices"][0]["memory"] > 0 and found["hub"]["offline"]
    assert found["recipes"]["r"] | {"disk": 0, "hours": 0} == {
        "ready": True, "lacks": [], "fetch": 0, "disk": 0, "hours": 0
    }  # fmt: skip
    assert not found["recipes"]["lacking"]["ready"]
    assert found["recipes"]["lacking"]["lacks"][0].startswith(
        "models.flux.lora.0.id: someone/style: not on this machine"
    )
    text = run_command("doctor", recipe)[1]
    assert "Recipe r: ready" in text and "sentencepiece" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("prior.id=FLUX",), "holds a FluxPipeline, but a latent prior needs a StableDiffusionPipeline"),
        (("prior.scheduler=DDIMShceduler",), "The scheduler DDIMShceduler cannot be guided"),
        (("dictionary.load=NONE",), "There is no file or folder NONE"),
        (("dictionary.load=nobody/nothing",), "nobody/nothing is not on this machine and could not be fetched"),
        (("dictionary.load=NARROW",), "reads tokens of width 8, but the encoder gives 16"),
        (("judge={id: FLUX}",), "The judge FLUX cannot be loaded"),
        (("models.flux.scheduler=DDIMScheduler",), "DDIMScheduler is not for flow matching"),
        (("models.flux.pipeline=nobody/nothing",), "The pipeline nobody/nothing cannot be loaded"),
        (("models.flux.unet=nobody/nothing",), "The pipeline nobody/nothing cannot be loaded"),
        (("models.flux.call={gidance: 2}",), "A FluxPipeline takes no gidance"),
        (("models.flux.call={guidance_scale: 2}",), "cannot hold guidance_scale, which is said by guidance"),
        (("models.flux.height=100",), "'models.flux.height' is 100, but input should be a multiple of 8"),
        (("models.flux.preset=fluks-schnell",), "(did you mean 'flux-schnell'?)"),
    ],
)
def test_what_is_wrong_is_said_before_any_model_draws(
    recipe: Path, settings: tuple[str, ...], words: str, generator_folder: Callable, run_command: Callable
):
    names = {"FLUX": generator_folder("flux-schnell"), "NONE": recipe.parent / "none"}
    names["NARROW"] = recipe.parent / "narrow"
    out, options = recipe.parent / "refused", []
    for setting in settings:
        for name, path in names.items():
            setting, words = setting.replace(name, str(path)), words.replace(name, str(path))
        options += ["--set", setting]
    code, _, err = run_command("run", recipe, *options, "--out", out)
    assert code == 1 and words in " ".join(err.split()), err
    assert "Traceback" not in err and not list(recipe.parent.glob("refused.work/*/*"))
