"""The training loop that every image model shares: epochs, early stopping, checkpoints, mixed precision, progress bar.

A run is killed and resumed without loss: after each epoch everything it needs is in ``checkpoint.pt`` (tensors and
plain values only, read with ``weights_only``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

Batch = TypeVar("Batch")
CHECKPOINT = "checkpoint.pt"


class Recipe(Protocol[Batch]):
    """What a model brings to the loop."""

    @property
    def network(self) -> nn.Module:
        """The network to train, in place."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the training batches of an epoch; the same for the same epoch."""
        ...

    def batch_count(self) -> int:
        """Return how many batches an epoch has."""
        ...

    def loss(self, batch: Batch, device: torch.device) -> Tensor:
        """Return the loss of one batch."""
        ...

    def validate(self, device: torch.device) -> dict[str, float]:
        """Return validation figures; ``score`` (higher is better) decides which epoch is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """How long and how fast to train. ``patience`` epochs without a better score end the run."""

    epochs: int = 12
    patience: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(slots=True)
class Fitted:
    """What came out: the best epoch's weights, and the figures of every epoch."""

    weights: dict[str, Tensor]
    best_epoch: int
    history: list[dict[str, float]]


def multiplies_in_half(device: torch.device) -> bool:
    """Whether mixed precision pays: on CUDA, and on processors with bfloat16 arithmetic (a third to a half faster)."""
    if device.type != "cpu":
        return device.type == "cuda"
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


class Diverged(ValueError):
    """Training came to numbers that are not finite; nothing learned after that is worth keeping."""


def clip_gradients(network: nn.Module, most: float, *, scaled: bool = False) -> None:
    """Limit the norm of the gradients; raise Diverged when it is not finite.

    ``scaled``: a gradient scaler is at work, which passes over such a step itself.
    """
    norm = nn.utils.clip_grad_norm_(network.parameters(), most)
    if not scaled and not bool(norm.isfinite()):
        raise Diverged(
            "training diverged: its gradients are no longer finite. Look for a series with wrong values among the "
            "studies, else train with another --seed, or on a machine of another kind"
        )


class Trainer(Generic[Batch]):
    """Train a recipe, keeping its state in ``folder``."""

    def __init__(self, recipe: Recipe[Batch], folder: Path, settings: LoopSettings, device: torch.device) -> None:
        self.recipe, self.folder, self.settings, self.device = recipe, folder, settings, device
        recipe.network.to(device)
        self.optimiser = torch.optim.AdamW(
            recipe.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.mixed = multiplies_in_half(device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.epoch = 0
        self.best_score = -math.inf
        self.fitted = Fitted({}, -1, [])

    def run(self, *, resume: bool = False, show_progress: bool = True) -> Fitted:
        """Train to the end and return the best weights; with ``resume`` go on from the checkpoint, if there is one."""
        torch.manual_seed(self.settings.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        if resume and (self.folder / CHECKPOINT).exists():
            self._load()
        columns: tuple[ProgressColumn, ...] = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        columns = (*columns, TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not show_progress) as progress:
            while self.epoch < self.settings.epochs and not self._exhausted():
                bar = progress.add_task(
                    f"epoch {self.epoch + 1}/{self.settings.epochs}", total=self.recipe.batch_count()
                )
                figures = self._one_epoch(lambda bar=bar: progress.advance(bar))
                self._keep(figures)
                shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
                progress.update(bar, description=f"epoch {self.epoch}/{self.settings.epochs} {shown}")
        return self.fitted

    def _exhausted(self) -> bool:
        return self.fitted.best_epoch >= 0 and self.epoch - self.fitted.best_epoch > self.settings.patience

    def _one_epoch(self, advance: Any) -> dict[str, float]:
        network, device = self.recipe.network, self.device
        network.train()
        total = self.recipe.batch_count()
        losses = []
        for index, batch in enumerate(self.recipe.batches(self.epoch)):
            self._set_learning_rate(self.epoch + index / max(1, total))
            self.optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, enabled=self.mixed):
                loss = self.recipe.loss(batch, device)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self.scaler.unscale_(self.optimiser)
            clip_gradients(network, 5.0, scaled=self.scaler.is_enabled())
            self.scaler.step(self.optimiser)
            self.scaler.update()
            losses.append(float(loss.detach()))
            advance()
        network.eval()
        with torch.inference_mode():
            figures = self.recipe.validate(device)
        return {"loss": sum(losses) / max(1, len(losses))} | figures

    def _set_learning_rate(self, epoch: float) -> None:
        """Warm up over half an epoch, then a half cosine to the end (Loshchilov and Hutter, 2017)."""
        warm = min(1.0, (epoch + 0.02) / 0.5)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, epoch / self.settings.epochs)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * warm * max(cosine, 0.02)

    def _keep(self, figures: dict[str, float]) -> None:
        self.epoch += 1
        self.fitted.history.append({"epoch": float(self.epoch)} | figures)
        if figures["score"] > self.best_score:
            self.best_score = figures["score"]
            self.fitted.best_epoch = self.epoch
            self.fitted.weights = {k: v.detach().cpu().clone() for k, v in self.recipe.network.state_dict().items()}
        state = {
            "network": self.recipe.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.fitted.best_epoch,
            "weights": self.fitted.weights,
            "history": self.fitted.history,
        }
        temporary = self.folder / (CHECKPOINT + ".tmp")
        torch.save(state, temporary)
        temporary.replace(self.folder / CHECKPOINT)

    def _load(self) -> None:
        state = torch.load(self.folder / CHECKPOINT, map_location=self.device, weights_only=True)
        self.recipe.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.best_score = state["epoch"], state["best_score"]
        self.fitted = Fitted(state["weights"], state["best_epoch"], state["history"])
