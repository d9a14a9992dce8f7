import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from engine.atlas import Atlas
from engine.errors import BlindspotError
from engine.hub import ALLOW, remember_model
from engine.samplers.models import ModelBundle
from tests.judges import add_judge, save_judge


def test_two_openings_of_an_atlas_share_their_models(atlas, drawable):
    first, second = ModelBundle(atlas, "cpu"), ModelBundle(Atlas.open(drawable), "cpu")
    assert first.encoder is second.encoder and first.dictionary is second.dictionary and first.prior is second.prior


def test_threads_that_ask_at_once_get_the_same_models(atlas):
    with ThreadPoolExecutor(4) as pool:
        priors = list(pool.map(lambda _: ModelBundle(atlas, "cpu").prior, range(4)))
    assert len({id(prior) for prior in priors}) == 1


def test_the_encoder_is_the_one_that_the_atlas_describes(atlas):
    spec = ModelBundle(atlas, "cpu").encoder.spec
    assert (spec.image_size, spec.grid, spec.prefix_tokens, spec.dim) == (32, (4, 4), 3, 16)


def test_a_dictionary_that_changed_on_disk_is_read_anew(atlas, drawable):
    models = ModelBundle(atlas, "cpu")
    before = models.dictionary
    os.utime(drawable / "dictionary" / "config.json")
    assert models.dictionary is not before


def test_an_atlas_without_a_prior_says_what_to_do(atlas):
    atlas.info = replace(atlas.info, prior=None)
    with pytest.raises(BlindspotError, match="names no diffusion prior to draw with: set `prior` in its recipe"):
        ModelBundle(atlas, "cpu").load()


@pytest.mark.parametrize("part", ["encoder", "prior", "pipeline", "judge"])
def test_an_atlas_from_elsewhere_loads_no_model_of_its_header_before_the_user_agrees(
    drawable, tmp_path, monkeypatch, part
):
    """Neither by a path nor by an id, whatever lies beside the atlas."""
    monkeypatch.delenv(ALLOW, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked another host"))
    sent = shutil.copytree(drawable, tmp_path / "sent" / "atlas")
    block = "prior" if part == "pipeline" else part
    if part == "judge":
        save_judge(drawable.parent / "judge", ("kind: disc",))
        add_judge(sent, "../judge", {})
    stage = sent.with_name("atlas.work") / "encode" / "real"
    stage.mkdir(parents=True)

    def naming(model: str) -> ModelBundle:
        header = json.loads((sent / "atlas.json").read_text())
        header[block] |= {"id": model}
        header["stages"] = {"encode/real": "0" * 64}
        (sent / "atlas.json").write_text(json.dumps(header))
        (stage / "stage.json").write_text(json.dumps({"fingerprint": "0" * 64, "done": True, "files": {}}))
        return ModelBundle(Atlas.open(sent), "cpu")

    with pytest.raises(BlindspotError, match="is not on this machine"):
        getattr(naming("nobody/no-such-model"), part)
    models = naming(str(drawable.parent / block))
    with pytest.raises(BlindspotError, match="which does not lie beside it: if you trust the atlas"):
        getattr(models, part)
    remember_model(drawable.parent / block)
    assert getattr(models, part) is not None
