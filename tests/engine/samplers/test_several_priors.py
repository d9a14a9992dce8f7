"""An atlas that names several diffusion priors: each can draw, comparisons mix them, a drawing says which it was."""

import json
import shutil

import pytest
import torch

from engine.atlas import Atlas
from engine.atlas.schema import AtlasInfo, prior_of, priors_of
from engine.errors import BlindspotError
from engine.jobs import job_id
from engine.reports.samplers import method_name
from engine.samplers.generation import GenerationRequest, generate_images
from engine.samplers.models import ModelBundle
from engine.samplers.records import drawn_with, job_parameters, load_generation, reproduction_command, save_generation
from engine.samplers.registry import SamplerSettings
from engine.samplers.scores import ConceptScore
from precompute.studies.methods import ComparisonSettings, compare_method, require_comparable
from tests.engine.priors.tiny import tiny_pixel_pipeline

CONCEPT = 2


@pytest.fixture(scope="module")
def several(drawable, tmp_path_factory):
    """The drawable atlas with a pixel prior beside its latent one."""
    root = tmp_path_factory.mktemp("several")
    path = shutil.copytree(drawable, root / "atlas")
    for name in ("encoder", "prior"):
        shutil.copytree(drawable.parent / name, root / name)
    tiny_pixel_pipeline(root / "pixels")
    header = json.loads((path / "atlas.json").read_text())
    header["priors"] = {"pixels": {"id": "../pixels", "kind": "pixel", "prompt": ""}}
    (path / "atlas.json").write_text(json.dumps(header))
    return Atlas.open(path)


def request_of(prior=None, **more):
    return GenerationRequest(CONCEPT, more.pop("method", "energydps"), count=1, steps=2, prior=prior, **more)


def test_each_prior_draws_by_its_name_and_the_first_without_one(several):
    images = {
        name: generate_images(several, request_of(name), "cpu").samples.images for name in (None, "default", "pixels")
    }
    assert torch.equal(images[None], images["default"])
    assert images[None].shape[-1] == 32 and images["pixels"].shape[-1] == 16


def test_a_header_keeps_them_and_an_older_one_has_none(several, atlas):
    info = several.info
    assert list(priors_of(info)) == ["default", "pixels"] and prior_of(info)["kind"] == "latent"
    assert AtlasInfo.from_dict(json.loads(json.dumps(info.to_dict()))).priors == info.priors
    assert atlas.info.priors == {} and "priors" not in atlas.info.to_dict()
    assert list(priors_of(atlas.info)) == ["default"]


@pytest.mark.parametrize("wrong", ["x", [], {"a": "x"}, {"default": {"id": "x"}}, {"a": {"id": 1}}])
def test_a_header_that_names_them_otherwise_is_damaged(several, wrong):
    with pytest.raises(BlindspotError, match="is damaged"):
        AtlasInfo.from_dict({**several.info.to_dict(), "priors": wrong})


def test_a_prior_that_is_not_there_is_one_sentence(several):
    with pytest.raises(BlindspotError, match="has no prior 'sd': choose one of default, pixels"):
        generate_images(several, request_of("sd"), "cpu")


def test_a_drawing_says_its_prior_method_and_device(several, tmp_path):
    save_generation(generate_images(several, request_of("pixels"), "cpu"), tmp_path)
    record = load_generation(tmp_path)
    assert record["prior"] == several.info.priors["pixels"] and record["parameters"]["prior"] == "pixels"
    assert drawn_with(record) == "prior pixels, ../pixels (pixel), on cpu in float32"
    assert "--prior pixels" in reproduction_command(record["parameters"])
    save_generation(generate_images(several, request_of(method="maco"), "cpu"), tmp_path)
    assert drawn_with(load_generation(tmp_path)) == "without a prior, on cpu in float32"
    assert drawn_with({"parameters": {"method": "energydps"}}) == ""


def test_a_job_s_name_depends_on_the_prior_and_stays_what_it_was_for_the_first(several, atlas):
    first, other = (job_id(job_parameters(several, request_of(name))) for name in (None, "pixels"))
    assert first != other
    parameters = job_parameters(atlas, request_of())
    assert "prior" not in parameters and parameters["atlas"]["prior"] == atlas.info.prior
    assert (
        job_parameters(atlas, request_of(), "float32") == parameters != job_parameters(atlas, request_of(), "bfloat16")
    )


def test_a_comparison_mixes_priors(several):
    models = ModelBundle(several, "cpu")
    score = ConceptScore(models.encoder, models.dictionary, [CONCEPT])
    comparison = ComparisonSettings(score, 1e-3, SamplerSettings(steps=2, candidates=1), count=4, evaluations=3)
    sizes = {
        name: compare_method(name, models, comparison).images.shape[-1] for name in ("energydps", "energydps@pixels")
    }
    assert sizes == {"energydps": 32, "energydps@pixels": 16}
    assert method_name("energydps@pixels") == "EnergyDPS, Algorithm 1, prior pixels"
    with pytest.raises(BlindspotError, match="has no prior 'sd'"):
        compare_method("energydps@sd", models, comparison)
    with pytest.raises(BlindspotError, match="'maco' does not draw from a prior"):
        require_comparable(["maco@pixels"])
    with pytest.raises(BlindspotError, match="'magic' cannot be compared"):
        require_comparable(["magic@pixels"])
