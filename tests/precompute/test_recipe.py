"""Recipes are read as written, and what is wrong with one is said in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import BlindspotError
from precompute.recipe import Folder, Pipeline, World, load_recipe
from tests.precompute.materials import save_recipe

RECIPES = Path(__file__).parents[2] / "data" / "recipes"
FOLDERS = ("real=photos", "models.mine=generated")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "encoder").mkdir()
    return save_recipe(tmp_path / "r.yaml", real="photos", models={"mine": "drawn", "sd": {"pipeline": "some/model"}})


def complaint(path: Path, *settings: str) -> str:
    with pytest.raises(BlindspotError) as caught:
        load_recipe(path, settings)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("name", ["folders", "paper", "dinov3"])
def test_the_recipes_for_own_images_need_nothing_but_folders(name: str):
    read = load_recipe(RECIPES / f"{name}.yaml", FOLDERS)
    assert read.name == name and read.models["mine"] == Folder(folder=Path.cwd() / "generated")


def test_the_demo_recipe_draws_its_world_with_its_four_models():
    read = load_recipe(RECIPES / "demo.yaml")
    assert isinstance(read.real, World) and list(read.models) == ["base", "base-early", "no-disc", "woody"]
    assert read.dictionary.concepts == 512 and read.dictionary.sparsity == 5


def test_paths_in_a_recipe_are_relative_to_its_file(recipe: Path):
    read = load_recipe(recipe)
    assert read.real.folder == recipe.parent / "photos" and read.models["mine"].folder == recipe.parent / "drawn"
    assert read.encoder.id == str(recipe.parent / "encoder")


def test_a_hub_id_stays_as_it_is(recipe: Path):
    assert load_recipe(recipe).models["sd"].pipeline == "some/model"
    assert load_recipe(recipe, ["encoder.id=facebook/dinov2-base"]).encoder.id == "facebook/dinov2-base"


def test_several_priors_have_names_and_their_folders_are_relative_too(recipe: Path):
    (recipe.parent / "pixels").mkdir()
    settings = ("prior={id: some/model}", "priors={pixels: {id: pixels, kind: pixel}, sd: {id: other/model}}")
    read = load_recipe(save_recipe(recipe, real="photos", models={"mine": "m"}, priors={"p": {"id": "pixels"}}))
    assert read.priors["p"].id == str(recipe.parent / "pixels")
    read = load_recipe(recipe, settings)
    assert read.prior.id == "some/model" and read.priors["sd"].id == "other/model"
    assert read.priors["pixels"].kind == "pixel" and load_recipe(RECIPES / "demo.yaml").priors == {}


def test_paths_in_set_are_relative_to_the_working_directory(recipe: Path, tmp_path: Path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_recipe(recipe, ["real=here"]).real.folder == elsewhere / "here"
    assert load_recipe(recipe, ["models.new=../there"]).models["new"].folder == tmp_path / "there"


def test_set_replaces_one_value_and_keeps_the_rest(recipe: Path):
    read = load_recipe(recipe, ["models.mine.pairing=stem", "dictionary.learning_rate=1e-3", "words={count: 3}"])
    assert read.models["mine"] == Folder(folder=recipe.parent / "drawn", pairing="stem")
    assert read.dictionary.learning_rate == 0.001 and read.dictionary.concepts == 12 and read.words.count == 3


def test_set_takes_a_folder_called_like_a_number_or_a_truth_value(recipe: Path):
    assert load_recipe(recipe, ["real=2024"]).real.folder.name == "2024"
    assert load_recipe(recipe, ["models.a=no"]).models["a"].folder.name == "no"


def test_set_turns_a_folder_into_a_pipeline(recipe: Path):
    read = load_recipe(recipe, ["models.mine={pipeline: some/model, steps: 7}"])
    assert read.models["mine"] == Pipeline(pipeline="some/model", steps=7)


def test_an_unknown_key_is_named_with_what_was_meant(recipe: Path):
    assert complaint(recipe, "encoder.layr=3") == (
        "r.yaml: unknown key 'encoder.layr' (did you mean 'layer'?); allowed here: id, revision, layer, hook, "
        "image_size, resize, device, dtype, batch, store."
    )


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("dictionry.concepts=5", "unknown key 'dictionry' (did you mean 'dictionary'?)"),
        ("real.pairng=stem", "unknown key 'real.pairng' (did you mean 'pairing'?)"),
        ("models.sd.step=3", "unknown key 'models.sd.step' (did you mean 'steps'?)"),
        ("prior={id: x, promt: y}", "(did you mean 'prompt'?); allowed here: id, kind, prompt"),
        ("priors={b: {id: x, promt: y}}", "unknown key 'priors.b.promt' (did you mean 'prompt'?)"),
        ("priors={default: {id: x}}", "'priors' has a prior called 'default'; use letters"),
        ("priors={a b: {id: x}}", "has a prior called 'a b'"),
        ("priors={b: {kind: pixel}}", "the key 'priors.b.id' is missing"),
        ("dictionary.kind=rasea", "'dictionary.kind' cannot be 'rasea' (did you mean 'rasae'?); allowed: rasae, topk"),
        ("dictionary.concepts=many", "'dictionary.concepts' is 'many', but input should be a valid integer"),
        ("dictionary.concepts=2", "greater than or equal to 4"),
        ("models.sd={steps: 3}", "'models.sd' needs exactly one of the keys folder or pipeline, and has steps"),
        ("models.sd={world: tabletop}", "'models.sd' must be a folder or a pipeline"),
        ("real={pipeline: x}", "the key 'real.captions' is missing"),
        ("models={}", "'models' needs at least one model"),
        ("models={real: x}", "not the name 'real'"),
        ("encoder.store=bfloat16", "'encoder.store' must be float16 or float32"),
        ("encoder", "not of the form key=value"),
        ("encoder.layer=[", "not valid YAML"),
    ],
)
def test_a_bad_setting_is_said_in_a_sentence(recipe: Path, setting: str, words: str):
    assert words in complaint(recipe, setting)


def test_missing_inputs_are_asked_for():
    assert "--set real=FOLDER" in complaint(RECIPES / "folders.yaml")
    assert "--set models.NAME=FOLDER" in complaint(RECIPES / "folders.yaml", "real=photos")


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1,", "line 1"), ("- a\n- b\n", "keys and values"), ("", "keys and values"), ("a: \xff", "cannot be read")],
)
def test_a_file_that_is_no_recipe_is_said_in_a_sentence(tmp_path: Path, text: str, words: str):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert words in complaint(path)


def test_a_missing_recipe_is_said_in_a_sentence(tmp_path: Path):
    assert "There is no recipe" in complaint(tmp_path / "none.yaml")
