"""One training run: optimiser, position in the shuffle, how long each concept has been silent, and the step itself.

The loss is the unexplained share of variance plus AuxK (`engine.dictionary.revival`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.dictionary.base import Dictionary
from engine.dictionary.encoding import Codes, combine
from engine.dictionary.processes import Processes
from engine.dictionary.revival import lift, unexplained_by_dead
from engine.dictionary.schedule import TrainConfig, chooses_in_half, learning_rate
from engine.dictionary.tokens import TokenSource
from engine.errors import BlindspotError

MEMORY = 0.95
MOST_TOKENS_UNTIL_DEAD = 1_000_000


class TrainingRun:
    """A dictionary on its way through its tokens; `advance` takes one step.

    Parameters
    ----------
    dictionary
        Initialised; trained in place.
    source
        Raw tokens.
    targets
        What is to be reconstructed, row by row; the tokens themselves for all but a transcoder.
    config
        See `TrainConfig`.
    processes
        Who else takes part.
    """

    def __init__(
        self,
        dictionary: Dictionary,
        source: TokenSource,
        targets: TokenSource,
        config: TrainConfig,
        processes: Processes,
    ) -> None:
        self.dictionary, self.source, self.targets, self.config = dictionary, source, targets, config
        self.processes = processes
        self.device = dictionary.mean.device
        self.half = chooses_in_half(config, self.device)
        whole = dictionary.together
        self.batch = max(1, min(config.batch_size, source.rows) // whole) * whole
        self.per_epoch = math.ceil(source.rows / self.batch)
        self.steps = config.steps or max(1, math.ceil(config.epochs * self.per_epoch))
        self.dead_after = config.dead_after or min(source.rows, MOST_TOKENS_UNTIL_DEAD)
        self.optimiser = torch.optim.AdamW(
            dictionary.parameter_groups(),
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.idle = torch.zeros(dictionary.concepts, dtype=torch.int64, device=self.device)
        self.running = torch.zeros(3, device=self.device)
        self.entry = torch.full((), math.inf, device=self.device)
        self.step = 0
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def identity(self) -> dict[str, object]:
        """What must agree for a checkpoint to be continued."""
        return {
            "config": {name: value for name, value in vars(self.config).items() if name != "checkpoint_every"},
            "kind": self.dictionary.kind,
            "settings": self.dictionary.settings(),
            "rows": self.source.rows,
            "processes": self.processes.count,
        }

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside dictionary and optimiser; restored in place."""
        return {"idle": self.idle, "running": self.running, "entry": self.entry}

    @property
    def r2(self) -> float:
        """Explained variance of the last batches, NaN before the first."""
        error, variance, _ = self.running.tolist()
        return 1 - error / variance if variance else math.nan

    @property
    def l0(self) -> float:
        """Active concepts per token in the last batches."""
        weight = 1 - MEMORY**self.step
        return float(self.running[2]) / weight if weight else math.nan

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or the explained variance asked for is reached."""
        target = self.config.target_r2
        return self.step >= self.steps or (target is not None and self.step > 0 and self.r2 >= target)

    def dead(self) -> Tensor:
        """Concepts silent for long, bool [K]."""
        return self.idle > self.dead_after

    def advance(self) -> Tensor:
        """One optimiser step; returns the unexplained share of variance, a scalar.

        Raises
        ------
        BlindspotError
            When the loss or its gradient is not finite; the dictionary is then as it was before the step.
        """
        dictionary = self.dictionary
        features, target = self._next_batch()
        codes = dictionary.activate_batch(features, self.half)
        with torch.no_grad():
            atoms = dictionary.atoms()
        atoms = atoms.detach().requires_grad_()
        found = combine(codes, atoms)
        loss = F.mse_loss(found, target)
        total = loss + self.config.revival * self._revival(features, target, found, atoms)
        total.backward()
        del found
        self._share_gradients(atoms)
        dictionary.pull_back(atoms.grad)
        atoms.grad = None
        self._require_finite(total + self._clip(), features, target)
        self._descend()
        dictionary.constrain()
        self._remember(codes, loss.detach(), target)
        self.step += 1
        return loss.detach()

    def _share_gradients(self, atoms: Tensor) -> None:
        """Average the gradients of encoder and atoms over the processes."""
        if self.processes.count > 1:
            for tensor in (*self.dictionary.encoder.parameters(), atoms):
                tensor.grad = self.processes.mean(tensor.grad)

    @torch.no_grad()
    def _clip(self) -> Tensor:
        """Scale the gradient down to the largest norm allowed; returns its norm before."""
        found = [parameter for parameter in self.dictionary.parameters() if parameter.grad is not None]
        formed = torch.nn.utils.get_total_norm([parameter.grad for parameter in found])
        norm = (formed.square() + self.dictionary.late_square()).sqrt()
        torch.nn.utils.clip_grads_with_norm_(found, self.config.clip_norm, norm)
        return norm

    @torch.no_grad()
    def _descend(self) -> None:
        """One AdamW step; it leaves alone what has no gradient at the moment, so late ones take their turns."""
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * learning_rate(self.step, self.steps, self.config)
        gradients = self.dictionary.late_gradients(self.half)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        late = (block for group in self.optimiser.param_groups if group.get("late") for block in group["params"])
        for parameter, gradient in zip(late, gradients, strict=True):
            parameter.grad = gradient
            self.optimiser.step()
            parameter.grad = None

    def _revival(self, features: Tensor, target: Tensor, found: Tensor, atoms: Tensor) -> Tensor:
        """AuxK: the error's share that the strongest dead concepts leave unexplained, a scalar."""
        dead = self.dead().nonzero().squeeze(-1)
        if len(dead) == 0 or self.config.revival == 0:
            return target.new_zeros(())
        error = target - found.detach()
        left = self.processes.mean(error.square().mean()).clamp_min(1e-8)
        return unexplained_by_dead(self.dictionary, dead, features, error, atoms, self.half) / left

    @torch.no_grad()
    def _remember(self, codes: Codes, loss: Tensor, target: Tensor) -> None:
        """Everything that a step learns without gradients."""
        level = self.processes.mean(self.dictionary.entry_level(codes))
        self.dictionary.observe(level)
        active = codes.values > 0
        fired = torch.zeros_like(self.idle, dtype=torch.bool)
        fired[codes.indices[active]] = True
        if self.config.revival > 0:
            self.entry.copy_(torch.minimum(self.entry, level))
            unexplained = self.processes.mean(loss / target.square().mean().clamp_min(1e-8))
            pace = learning_rate(self.step, self.steps, self.config) / self.config.learning_rate
            lift(self.dictionary, self.dead(), self.entry, pace * unexplained)
        self.idle += len(target) * self.processes.count
        self.idle[self.processes.any(fired)] = 0
        seen = torch.stack([loss, target.square().mean(), active.sum() / len(active)])
        self.running.lerp_(self.processes.mean(seen), 1 - MEMORY)

    def _next_batch(self) -> tuple[Tensor, Tensor]:
        """What the encoder reads of the next tokens, and what is to be reconstructed, in the dictionary's units."""
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            shuffle = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, self.source.order(shuffle, self.dictionary.together)
        rows = self._order[position * self.batch : (position + 1) * self.batch]
        rows = self.processes.share(rows, self.dictionary.together)
        x = self.source.gather(rows).to(self.device)
        features = self.dictionary.features(x)
        if self.targets is not self.source:
            return features, self.dictionary.standardise_target(self.targets.gather(rows).to(self.device))
        return features, features if self.dictionary.reads_target else self.dictionary.standardise_target(x)

    def _require_finite(self, outcome: Tensor, features: Tensor, target: Tensor) -> None:
        if torch.isfinite(outcome):
            return
        self.optimiser.zero_grad(set_to_none=True)
        if not (features.isfinite().all() and target.isfinite().all()):
            raise BlindspotError(
                f"The training tokens of step {self.step + 1} hold NaN or infinite numbers, so training stopped "
                "before it; encode them again in float32 or bfloat16, or leave the broken image out."
            )
        raise BlindspotError(f"Training diverged in step {self.step + 1}; lower the learning rate.")
