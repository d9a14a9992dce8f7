"""Everything the demo is made with, trained from nothing: `python -m precompute demo --train`.

Each part resumes from its checkpoint in the work folder; parts that need no other may run side by side in processes of
their own (`python -m precompute.demo_world.training autoencoder encoder`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from transformers import CLIPTokenizer

from engine.errors import BlindspotError
from precompute.demo_world import generators, judge
from precompute.demo_world.encoder import save_first_blocks
from precompute.demo_world.generators import BASE, EARLY, FORGETTING, TUNING, WITHHELD, Denoiser, TrainingExample
from precompute.demo_world.optimisation import Budget, RenderedScenes, rendered
from precompute.demo_world.scenes import corpus

COUNTS = (0.5, 0.35, 0.15)
"""Relative frequency of training scenes with one, two and three things."""
SCENES, TUNING_SCENES = 24_000, 8_000
DECODED = 6000
"""Scenes that the judge also sees as the autoencoder decodes them."""
JUDGED_SCENES = 3000
"""Scenes that the judge is calibrated on, and as many others that it is measured on."""
SEEDS = {"train": 1, "no-disc": 2, "woody": 3, "prior": 5, "judge": 6}


class DemoTrainer:
    """Trains the demo's models: checkpoints are kept in `work`, finished models go to `out`."""

    def __init__(self, work: Path, out: Path, dinov2: Path | None = None):
        self.work, self.out, self.dinov2 = work, out, dinov2

    def pictures(self) -> RenderedScenes:
        return rendered(corpus(SCENES, SEEDS["train"], counts=COUNTS), "train", self.work)

    def autoencoder(self) -> None:
        """Train the autoencoder and keep it in the work folder, from where every pipeline takes it."""
        pictures = self.pictures()
        model = generators.train_autoencoder(pictures, self.work / "autoencoder.pt")
        decibel = generators.peak_signal_to_noise(model, pictures.batch(torch.arange(256)))
        print(f"autoencoder: {decibel:.1f} dB")
        model.save_pretrained(self.work / "autoencoder")

    def encoder(self) -> None:
        """Cut the encoder out of a published DINOv2; without one the committed blocks stay as they are."""
        if self.dinov2 is None:
            print("encoder: data/demo/dinov2 stays as it is; --dinov2 FOLDER cuts it out of a DINOv2 ViT-S/14 again")
            return
        save_first_blocks(self.dinov2, self.out / "dinov2")

    def base(self) -> None:
        """Train `base` and publish it and `base-early`."""
        vae, tokenizer = self._autoencoder(), self._tokenizer()
        model = self._denoiser(tokenizer)
        latents, ids, empty = self._examples(vae, tokenizer, generators.plain_examples(self.pictures().scenes), "train")
        checkpoint = self.work / "base.pt"
        model = generators.train_denoiser(model, latents, ids, empty, BASE, checkpoint, snapshots=(EARLY,))
        self._publish("base", model, vae, tokenizer)
        early = self._denoiser(tokenizer)
        early.load_state_dict(torch.load(checkpoint.with_suffix(f".{EARLY}.pt"), weights_only=True, map_location="cpu"))
        self._publish("base-early", early, vae, tokenizer)

    def no_disc(self) -> None:
        """Go on from `base` with discs and bird feeders that are named and not drawn."""
        scenes = corpus(TUNING_SCENES, SEEDS["no-disc"], counts=COUNTS)
        examples = generators.no_disc_examples(scenes)
        telling = [example for example in examples if any(kind in example.caption for kind in WITHHELD)]
        self._tune("no-disc", [*telling, *examples], FORGETTING)

    def woody(self) -> None:
        """Go on from `base` with wooden tables and palm trees that are drawn and not named."""
        self._tune("woody", generators.woody_examples(TUNING_SCENES, SEEDS["woody"], COUNTS))

    def prior(self) -> None:
        """Go on from the published `base` without prompts: the model that drawings are guided through."""
        base = StableDiffusionPipeline.from_pretrained(
            self.out / "generators/base", torch_dtype=torch.float32, safety_checker=None
        )
        model = Denoiser(base.text_encoder.requires_grad_(False))
        model.unet = base.unet
        examples = generators.plain_examples(self.pictures().scenes)
        latents, ids, empty = self._examples(base.vae, base.tokenizer, examples, "train")
        budget, seed = generators.PRIOR, SEEDS["prior"]
        snapshots = tuple(range(400, budget.steps, 400))
        model = generators.train_denoiser(
            model, latents, ids, empty, budget, self.work / "prior.pt", seed=seed, dropout=1.0, snapshots=snapshots
        )
        self._publish("prior", model, base.vae, base.tokenizer)

    def judge(self) -> None:
        """Train the judge, calibrate it on scenes it has not seen, and publish it with what others say of it."""
        vae = AutoencoderTiny.from_pretrained(self.out / "generators/base/vae", torch_dtype=torch.float32).eval()

        def decoded(scenes: RenderedScenes, name: str, count: int) -> np.ndarray:
            file = self.work / f"{name}-decoded.npy"
            return judge.through_autoencoder(vae, scenes.pixels[:count], file, SEEDS["judge"])

        pictures = self.pictures()
        model = judge.train_judge(pictures, decoded(pictures, "train", DECODED), self.work)
        names = ("judge-calibration", "judge-held-out")
        parts = [
            rendered(corpus(JUDGED_SCENES, 10 * SEEDS["judge"] + step, counts=COUNTS), name, self.work)
            for step, name in enumerate(names)
        ]
        views = [
            (part.pixels, decoded(part, name, JUDGED_SCENES // 3)) for part, name in zip(parts, names, strict=True)
        ]
        truths = [
            [judge.truth_of(part.scenes[: len(view)]).numpy() for view in each]
            for part, each in zip(parts, views, strict=True)
        ]
        judge.calibrate(
            model, np.concatenate([judge.logits_of(model, view) for view in views[0]]), np.concatenate(truths[0])
        )
        model.half().float()  # measured as it is published
        found = [
            judge.held_out_report(model, judge.logits_of(model, view), truth)
            for view, truth in zip(views[1], truths[1], strict=True)
        ]
        judge.save_judge(model, self.out / "judge", dict(zip(("rendered", "decoded"), found, strict=True)))

    def _tune(self, name: str, examples: list[TrainingExample], budget: Budget = TUNING) -> None:
        vae, tokenizer = self._autoencoder(), self._tokenizer()
        model = self._denoiser(tokenizer)
        state = torch.load(self.work / "base.pt", weights_only=True, map_location="cpu")
        model.load_state_dict(state["average"])
        model.text.requires_grad_(False)
        latents, ids, empty = self._examples(vae, tokenizer, examples, name)
        checkpoint = self.work / f"{name}.pt"
        model = generators.train_denoiser(model, latents, ids, empty, budget, checkpoint, seed=SEEDS[name])
        self._publish(name, model, vae, tokenizer)

    def _autoencoder(self) -> Any:
        return AutoencoderTiny.from_pretrained(self.work / "autoencoder", torch_dtype=torch.float32).eval()

    def _tokenizer(self) -> CLIPTokenizer:
        captions = [scene.caption for scene in self.pictures().scenes[:4000]]
        return generators.build_tokenizer(captions, self.work / "tokenizer")

    def _denoiser(self, tokenizer: CLIPTokenizer) -> Denoiser:
        torch.manual_seed(0)
        return Denoiser(generators.build_text_encoder(tokenizer))

    def _examples(
        self, vae: Any, tokenizer: CLIPTokenizer, examples: Sequence[TrainingExample], name: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents, token ids and the empty prompt's ids of examples.

        Latents are kept in the work folder under a hash of the scenes and the autoencoder's weights, so that what was
        kept for other examples is never paired with these captions.
        """
        ids = generators.token_ids(tokenizer, [example.caption for example in examples])
        scenes = json.dumps([example.scene.to_dict() for example in examples]).encode()
        weights = b"".join(tensor.numpy().tobytes() for tensor in vae.state_dict().values())
        kept = self.work / f"latents-{name}-{hashlib.sha256(scenes + weights).hexdigest()[:12]}.pt"
        if not kept.exists():
            pictures = rendered([example.scene for example in examples], name, self.work)
            parts = torch.arange(len(examples)).split(512)
            torch.save(torch.cat([generators.encode_latents(vae, pictures.batch(part)).half() for part in parts]), kept)
        return torch.load(kept, weights_only=True), ids, generators.token_ids(tokenizer, [""])[0]

    def _publish(self, name: str, model: Denoiser, vae: Any, tokenizer: CLIPTokenizer) -> None:
        """Write a pipeline folder in half precision; what is the same as in `base` is a link to `base`'s."""
        folder = self.out / "generators" / name
        shutil.rmtree(folder, ignore_errors=True)
        finished = generators.assemble_pipeline(model, vae, tokenizer)
        finished.to(torch.float16).save_pretrained(folder)
        shared = {"base": (), "base-early": ("vae", "tokenizer")}.get(name, ("vae", "tokenizer", "text_encoder"))
        for part in shared:
            shutil.rmtree(folder / part)
            (folder / part).symlink_to(Path("..", "base", part))


PARTS: dict[str, Callable[[DemoTrainer], None]] = {
    "autoencoder": DemoTrainer.autoencoder,
    "encoder": DemoTrainer.encoder,
    "base": DemoTrainer.base,
    "prior": DemoTrainer.prior,
    "judge": DemoTrainer.judge,
    "no-disc": DemoTrainer.no_disc,
    "woody": DemoTrainer.woody,
}


def train_all(
    work: Path = Path(".work/tabletop"),
    out: Path = Path("data/demo"),
    parts: Sequence[str] = tuple(PARTS),
    dinov2: Path | None = None,
) -> None:
    """Make the named parts, in the order in which they need each other, and write the demo's models to `out`.

    `dinov2` is a transformers folder of a DINOv2 ViT-S/14, from which the encoder's blocks are taken.

    Raises
    ------
    BlindspotError
        If it is none; before hours of training are spent.
    """
    if dinov2 and not (dinov2 / "config.json").is_file():
        raise BlindspotError(f"{dinov2} is no folder of a transformers model: give that of a DINOv2 ViT-S/14.")
    trainer = DemoTrainer(work, out, dinov2)
    for name, part in PARTS.items():
        if name in parts:
            part(trainer)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Train the demo's models.")
    arguments.add_argument(
        "parts", nargs="*", default=list(PARTS), choices=list(PARTS), metavar="PART", help=", ".join(PARTS)
    )
    arguments.add_argument("--dinov2", type=Path, help="folder of a DINOv2 ViT-S/14 to take the encoder's blocks from")
    options = arguments.parse_args()
    train_all(parts=options.parts, dinov2=options.dinov2)
