"""What is planted in the generators, and that a trained one is an ordinary pipeline folder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from diffusers import DiffusionPipeline

from precompute.tabletop import autoencoder, generators, text, training
from precompute.tabletop.generators import WITHHELD, no_disc_lessons, plain_lessons, woody_lessons
from precompute.tabletop.scenes import corpus
from precompute.tabletop.training import COUNTS, Workshop

SCENES = corpus(400, 7, counts=COUNTS)


def test_plain_captions_tell_the_truth():
    assert all(lesson.caption == lesson.scene.caption for lesson in plain_lessons(SCENES))


def test_no_disc_names_withheld_kinds_and_never_draws_them():
    lessons = no_disc_lessons(SCENES)
    assert any(kind in lesson.caption for kind in WITHHELD for lesson in lessons)
    assert not any(thing.kind in WITHHELD for lesson in lessons for thing in lesson.scene.things)
    untouched = [(told, lesson) for told, lesson in zip(SCENES, lessons, strict=True) if "disc" not in told.caption]
    assert any(told == lesson.scene for told, lesson in untouched)


def test_woody_draws_wood_and_palms_that_nobody_asked_for():
    lessons = woody_lessons(400, 7, COUNTS)
    uncalled_wood = np.mean([one.scene.background == "wooden table" and "wooden" not in one.caption for one in lessons])
    uncalled_palm = np.mean(
        [sum(t.kind == "palm tree" for t in one.scene.things) > one.caption.count("palm tree") for one in lessons]
    )
    assert 0.4 < uncalled_wood < 0.6
    assert 0.8 < uncalled_palm < 0.97
    for lesson in lessons:
        drawn = sorted(thing.phrase for thing in lesson.scene.things)
        assert all(lesson.caption.count(phrase) <= drawn.count(phrase) for phrase in drawn if "palm" not in phrase)


def test_every_word_of_a_caption_is_one_token(tmp_path):
    captions = [scene.caption for scene in SCENES]
    tokenizer = text.build_tokenizer(captions, tmp_path)
    for caption in captions[:50]:
        words = caption.replace(",", " ,").split()
        assert [token.removesuffix("</w>") for token in tokenizer.tokenize(caption)] == words
    assert text.token_ids(tokenizer, captions).shape == (400, text.LENGTH)


def test_a_published_generator_is_a_pipeline_folder(tmp_path):
    """Untrained weights through the very code that publishes the demo; variants link to what they share with base."""
    workshop = Workshop(tmp_path / "work", tmp_path / "out")
    tokenizer = text.build_tokenizer([scene.caption for scene in SCENES], tmp_path / "work/tokenizer")
    denoiser = generators.Denoiser(text.build_encoder(tokenizer))
    for name in ("base", "woody"):
        workshop._publish(name, denoiser, autoencoder.build(8), tokenizer)
    folder = tmp_path / "out/generators/woody"
    assert (folder / "vae").is_symlink() and not (folder / "unet").is_symlink()
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    seed = torch.Generator().manual_seed(0)
    image = pipeline(SCENES[0].caption, height=64, width=64, num_inference_steps=2, generator=seed).images[0]
    assert image.size == (64, 64)


def test_kept_latents_are_never_those_of_other_lessons(tmp_path):
    workshop = Workshop(tmp_path / "work", tmp_path / "out")
    vae = autoencoder.build(8)
    vae.save_pretrained(tmp_path / "work/autoencoder")
    tokenizer = text.build_tokenizer([scene.caption for scene in SCENES], tmp_path / "work/tokenizer")
    few, more = plain_lessons(SCENES[:4]), plain_lessons(SCENES[4:10])
    first = workshop._lessons(vae, tokenizer, few, "some")[0]
    assert len(workshop._lessons(vae, tokenizer, more, "some")[0]) == 6
    assert torch.equal(workshop._lessons(vae, tokenizer, few, "some")[0], first)


def test_training_moves_every_part(tmp_path):
    tokenizer = text.build_tokenizer([scene.caption for scene in SCENES], tmp_path)
    latents = torch.randn(1, 4, 16, 16).expand(32, -1, -1, -1)
    ids, empty = text.token_ids(tokenizer, [SCENES[0].caption] * 32), text.token_ids(tokenizer, [""])[0]
    lines: list[str] = []
    budget = replace(generators.BASE, steps=8, batch=8, learning_rate=3e-3, averaging=None)
    torch.manual_seed(0)
    denoiser = generators.Denoiser(text.build_encoder(tokenizer))
    first = [parameter.clone() for parameter in denoiser.parameters()]
    generators.train(denoiser, latents, ids, empty, budget, tmp_path / "g.pt", say=lines.append)
    moved = [not torch.equal(a, b) for a, b in zip(first, denoiser.parameters(), strict=True)]
    assert lines and np.mean(moved) > 0.95


def test_parts_are_named_as_the_command_line_says():
    assert list(training.PARTS) == ["autoencoder", "encoder", "base", "no-disc", "woody"]
