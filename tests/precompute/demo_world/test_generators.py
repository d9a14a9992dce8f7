"""What is planted in the generators, and that a trained one is an ordinary pipeline folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from precompute.demo_world import generators, training
from precompute.demo_world.generators import WITHHELD, no_disc_examples, plain_examples, woody_examples
from precompute.demo_world.scenes import corpus
from precompute.demo_world.training import COUNTS, DemoTrainer

SCENES = corpus(400, 7, counts=COUNTS)


def test_plain_captions_tell_the_truth():
    assert all(example.caption == example.scene.caption for example in plain_examples(SCENES))


def test_no_disc_names_withheld_kinds_and_never_draws_them():
    examples = no_disc_examples(SCENES)
    assert any(kind in example.caption for kind in WITHHELD for example in examples)
    assert not any(thing.kind in WITHHELD for example in examples for thing in example.scene.things)
    untouched = [(told, example) for told, example in zip(SCENES, examples, strict=True) if "disc" not in told.caption]
    assert any(told == example.scene for told, example in untouched)


def test_woody_draws_wood_and_palms_that_nobody_asked_for():
    examples = woody_examples(400, 7, COUNTS)
    uncalled_wood = np.mean(
        [one.scene.background == "wooden table" and "wooden" not in one.caption for one in examples]
    )
    uncalled_palm = np.mean(
        [sum(t.kind == "palm tree" for t in one.scene.things) > one.caption.count("palm tree") for one in examples]
    )
    assert 0.4 < uncalled_wood < 0.6
    assert 0.8 < uncalled_palm < 0.97
    for example in examples:
        drawn = sorted(thing.phrase for thing in example.scene.things)
        assert all(example.caption.count(phrase) <= drawn.count(phrase) for phrase in drawn if "palm" not in phrase)


def test_every_word_of_a_caption_is_one_token(tmp_path):
    captions = [scene.caption for scene in SCENES]
    tokenizer = generators.build_tokenizer(captions, tmp_path)
    for caption in captions[:50]:
        words = caption.replace(",", " ,").split()
        assert [token.removesuffix("</w>") for token in tokenizer.tokenize(caption)] == words
    assert generators.token_ids(tokenizer, captions).shape == (400, generators.LENGTH)


def test_a_published_generator_is_a_pipeline_folder(tmp_path):
    """Untrained weights through the very code that publishes the demo; variants link to what they share with base."""
    trainer = DemoTrainer(tmp_path / "work", tmp_path / "out")
    tokenizer = generators.build_tokenizer([scene.caption for scene in SCENES], tmp_path / "work/tokenizer")
    denoiser = generators.Denoiser(generators.build_text_encoder(tokenizer))
    for name in ("base", "woody"):
        trainer._publish(name, denoiser, generators.build_autoencoder(8), tokenizer)
    folder = tmp_path / "out/generators/woody"
    assert (folder / "vae").is_symlink() and not (folder / "unet").is_symlink()
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(0)
    image = pipeline(SCENES[0].caption, height=64, width=64, num_inference_steps=2, generator=seed).images[0]
    assert image.size == (64, 64)


def test_kept_latents_are_never_those_of_other_examples(tmp_path):
    trainer = DemoTrainer(tmp_path / "work", tmp_path / "out")
    vae = generators.build_autoencoder(8)
    vae.save_pretrained(tmp_path / "work/autoencoder")
    tokenizer = generators.build_tokenizer([scene.caption for scene in SCENES], tmp_path / "work/tokenizer")
    few, more = plain_examples(SCENES[:4]), plain_examples(SCENES[4:10])
    first = trainer._examples(vae, tokenizer, few, "some")[0]
    assert len(trainer._examples(vae, tokenizer, more, "some")[0]) == 6
    assert torch.equal(trainer._examples(vae, tokenizer, few, "some")[0], first)


def test_training_moves_every_part(tmp_path):
    tokenizer = generators.build_tokenizer([scene.caption for scene in SCENES], tmp_path)
    latents = torch.randn(1, 4, 16, 16).expand(32, -1, -1, -1)
    ids, empty = generators.token_ids(tokenizer, [SCENES[0].caption] * 32), generators.token_ids(tokenizer, [""])[0]
    lines: list[str] = []
    budget = replace(generators.BASE, steps=8, batch=8, learning_rate=3e-3, averaging=None)
    torch.manual_seed(0)
    denoiser = generators.Denoiser(generators.build_text_encoder(tokenizer))
    first = [parameter.clone() for parameter in denoiser.parameters()]
    generators.train_denoiser(denoiser, latents, ids, empty, budget, tmp_path / "g.pt", say=lines.append)
    moved = [not torch.equal(a, b) for a, b in zip(first, denoiser.parameters(), strict=True)]
    assert lines and np.mean(moved) > 0.95


def test_a_prior_goes_on_from_base_without_prompts(tmp_path, monkeypatch):
    """It is a pipeline folder of its own that draws from noise alone, and only its UNet is new."""
    trainer = DemoTrainer(tmp_path / "work", tmp_path / "out")
    tokenizer = generators.build_tokenizer([scene.caption for scene in SCENES], tmp_path / "work/tokenizer")
    torch.manual_seed(0)
    denoiser = generators.Denoiser(generators.build_text_encoder(tokenizer))
    trainer._publish("base", denoiser, generators.build_autoencoder(8), tokenizer)
    monkeypatch.setattr(training, "SCENES", 16)
    monkeypatch.setattr(generators, "PRIOR", replace(generators.PRIOR, steps=3, batch=4))
    trainer.prior()
    folders = [tmp_path / "out/generators" / name for name in ("base", "prior")]
    weights = [load_file(folder / "unet/diffusion_pytorch_model.safetensors") for folder in folders]
    assert (folders[1] / "vae").is_symlink() and (folders[1] / "text_encoder").is_symlink()
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_parts_are_named_as_the_command_line_says():
    assert list(training.PARTS) == ["autoencoder", "encoder", "base", "prior", "judge", "no-disc", "woody"]
