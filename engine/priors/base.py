"""What a sampler may ask of a diffusion model, and the part of the answer that pixel and latent models share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from engine.errors import BlindspotError
from engine.hub import find_model, loading_options
from engine.priors.schedule import Prediction, Schedule, named_scheduler
from engine.priors.spec import PriorSpec

__all__ = ["DiffusionPrior", "Prediction", "class_label", "frozen", "open_pipeline"]

Network = TypeVar("Network", bound=nn.Module)
States = Float[Tensor, "n channels height width"]
Images = Float[Tensor, "n 3 height width"]


class DiffusionPrior(ABC):
    """A distribution over images given by a denoiser: a network and its noise schedule.

    Subclasses say how the network is called and how a state becomes an image.

    Parameters
    ----------
    schedule
        The noise schedule the network was trained with.
    shape
        Shape of one state, (C, h, w).
    image_size
        Side of a decoded image in pixels.
    device, dtype
        Where the network lives and the precision of its weights. States stay float32 whatever `dtype` is.
    eta
        Noise of a reverse step: 1 is ancestral (DDPM, EnergyDPS (arXiv:2605.17504), Algorithm 1), 0 is deterministic
        DDIM.
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    """Diffusers pipelines that serve as a prior of this class."""
    options: ClassVar[tuple[str, ...]] = ()
    """Fields of a `PriorSpec` that only some priors take and this one does: prompt, label, scheduler."""

    def __init__(
        self,
        schedule: Schedule,
        shape: tuple[int, int, int],
        image_size: int,
        device: torch.device,
        dtype: torch.dtype,
        eta: float = 1.0,
    ):
        self.schedule = schedule
        self.shape = shape
        self.image_size = image_size
        self.device = device
        self.dtype = dtype
        self.eta = eta

    @classmethod
    def from_pretrained(
        cls,
        spec: PriorSpec,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        eta: float | None = None,
    ) -> DiffusionPrior:
        """Open a diffusers pipeline from a folder or hub id (safetensors only).

        Parameters
        ----------
        spec
            Which pipeline, and what of it.
        eta
            Noise of a reverse step; None: that of the spec's scheduler, or else 1, Algorithm 1's.

        Raises
        ------
        BlindspotError
            If there is no such pipeline, it is of another kind, or the spec does not fit it.
        """
        pipeline = open_pipeline(spec.id, device, dtype)
        cls._require(type(pipeline), spec)
        own = 1.0
        if spec.scheduler is not None:
            pipeline.scheduler, own = named_scheduler(spec.scheduler, pipeline.scheduler)
        return cls.from_pipeline(pipeline, spec, own if eta is None else eta)

    @classmethod
    def check(cls, spec: PriorSpec) -> None:
        """Raise `BlindspotError` if there is nothing, another kind, or the scheduler misfits; loads no weights."""
        import diffusers

        config, options = pipeline_config(spec.id)
        cls._require(getattr(diffusers, str(config.get("_class_name")), DiffusionPrior), spec)
        if spec.scheduler is not None:
            own = getattr(diffusers, config["scheduler"][1])
            named_scheduler(spec.scheduler, own.from_pretrained(spec.id, subfolder="scheduler", **options))

    @classmethod
    def _require(cls, kind: type, spec: PriorSpec) -> None:
        if not any(parent.__name__ in cls.pipelines for parent in kind.__mro__):
            raise BlindspotError(
                f"{spec.id} holds a {kind.__name__}, but a {spec.kind} prior needs a {' or '.join(cls.pipelines)}."
            )

    @classmethod
    def from_pipeline(cls, pipeline: Any, spec: PriorSpec, eta: float) -> DiffusionPrior:
        """Make the prior from an open pipeline of `pipelines`."""
        raise NotImplementedError

    @abstractmethod
    def network(self, x_t: States, t: int) -> Float[Tensor, "n outputs height width"]:
        """The network's raw output at level t, in the network's own precision."""

    @abstractmethod
    def decode(self, z: States) -> Images:
        """States to images in [0, 1]; differentiable."""

    def timesteps(self, n: int) -> Int[Tensor, " n"]:
        """The noise levels that n steps visit, descending."""
        return self.schedule.timesteps(n)

    def noise(self, generators: Sequence[torch.Generator]) -> States:
        """Standard normal states, row i drawn from generator i alone: the same row in any batch."""
        rows = [torch.randn(self.shape, generator=generator, device=generator.device) for generator in generators]
        return torch.stack([row.to(self.device) for row in rows])

    def denoise(self, x_t: States, t: int) -> Prediction:
        """Predict the clean states from those at level t; differentiable in x_t."""
        return self.schedule.predict(self.network(x_t.to(self.dtype), int(t)).float(), x_t, int(t))

    def step(
        self, prediction: Prediction, t: int, t_prev: int, x_t: States, generators: Sequence[torch.Generator]
    ) -> States:
        """One reverse step from level t to t_prev (-1: clean).

        A draw from q(x_prev | x_t, x0) for eta = 1, its deterministic limit for eta = 0.
        """
        mean, sigma = self.transition(prediction, t, t_prev)
        return mean if self.eta == 0 or t_prev < 0 else mean + sigma * self.noise(generators)

    def transition(self, prediction: Prediction, t: int, t_prev: int) -> tuple[States, Tensor | float]:
        """Mean and standard deviation of the normal law that `step` draws from."""
        t, t_prev = int(t), int(t_prev)
        mean = self.schedule.mean(prediction.x0, prediction.eps, t, t_prev, self.eta)
        if self.eta == 0 or t_prev < 0:
            return mean, 0.0
        if prediction.spread is None:
            return mean, self.eta * self.schedule.sigma(t, t_prev)
        return mean, self.eta * self.schedule.learned_sigma(prediction.spread, t, t_prev)

    def sigma(self, t: int, t_prev: int) -> float:
        """Standard deviation of the reverse posterior q(x_prev | x_t, x0); 0 at the last step."""
        return self.schedule.sigma(int(t), int(t_prev))


def frozen(network: Network) -> Network:
    """Return the network ready for sampling: without gradients for its weights, channels last, which is faster."""
    network.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def class_label(label: int | None, classes: int | None, what: str) -> int | None:
    """Return the label of a network (`what`, for the message) once it is known to be one of its `classes`.

    Raises
    ------
    BlindspotError
        If there is no such class.
    """
    if label is not None and not 0 <= label < (classes or 0):
        choice = f"choose 0 to {classes - 1}" if classes else "it is unconditional, so give none"
        raise BlindspotError(f"This {what} has no class {label}: {choice}.")
    return label


def open_pipeline(path: str | Path, device: str | torch.device, dtype: torch.dtype) -> Any:
    """Open a diffusers pipeline without safety checker; weights only from safetensors, never from a pickle.

    Parameters
    ----------
    path
        A local pipeline folder (then no network is used) or a hub id.

    Raises
    ------
    BlindspotError
        If the folder or id does not hold a pipeline that diffusers can load.
    """
    from diffusers import DiffusionPipeline

    config, options = pipeline_config(path)
    if "safety_checker" in config:
        options["safety_checker"] = None
    found = str(Path(path).expanduser()) if options["local_files_only"] else str(path)
    try:
        pipeline = DiffusionPipeline.from_pretrained(found, use_safetensors=True, **options, **loading_options(found))
    except Exception as error:
        raise _unloadable(path, error) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, dtype)


def pipeline_config(path: str | Path) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Return what a pipeline's model_index.json says, and how its files are looked for; errors as `open_pipeline`."""
    from diffusers import DiffusionPipeline

    missing = f"There is no diffusion pipeline at {path}: give a pipeline folder or a hub id."
    found = find_model(path, missing, needs_owner=True)
    if isinstance(found, Path) and not (found / "model_index.json").is_file():
        raise BlindspotError(f"{path} is not a diffusion pipeline: it has no model_index.json.")
    options = {"local_files_only": isinstance(found, Path)}
    try:
        return DiffusionPipeline.load_config(str(found), **options), options
    except Exception as error:
        raise _unloadable(path, error) from error


def _unloadable(path: str | Path, error: Exception) -> BlindspotError:
    return BlindspotError(f"The diffusion pipeline {path} cannot be loaded: {' '.join(str(error).split())[:200]}")
