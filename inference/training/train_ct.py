"""Training the haemorrhage model in the paper's two stages, each resumable.

Stage 1: the slice encoder, from image-level labels (and blood masks where there are any). Stage 2: the attention
BiLSTM over the encoder's slice features, on other patients, from the study label alone (Wu et al., 2024).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from inference.haemorrhage_net import OUTPUTS, HaemorrhageNetwork, fast_layout, slice_channels
from inference.training.ct_augment import Batch, augment, gather, slice_index
from inference.training.ct_cache import PreparedStudy
from inference.training.loop import clip_gradients, multiplies_in_half

Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CtSettings:
    """How to train; ``steps`` counts batches of stage 1, ``epochs`` passes of stage 2."""

    seed: int = 0
    width: int = 16
    steps: int = 3500
    batch: int = 24
    learning_rate: float = 2.5e-3
    epochs: int = 40
    study_batch: int = 16
    study_learning_rate: float = 2e-3
    save_every: int = 200
    device: str = "cpu"


def train_slices(
    network: HaemorrhageNetwork,
    studies: Sequence[PreparedStudy],
    settings: CtSettings,
    checkpoint: Path,
    progress: Progress | None = None,
) -> list[float]:
    """Stage 1. Continues from ``checkpoint`` when it is there; leaves the averaged weights in ``network``.

    Returns
    -------
    list of float
        The mean loss of every 50 steps.
    """
    torch.manual_seed(settings.seed)
    device = torch.device(settings.device)
    encoder = network.encoder
    fast_layout(encoder, device)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    average = torch.optim.swa_utils.AveragedModel(encoder, multi_avg_fn=_warm_average, use_buffers=True)
    start, curve, recent = 0, [], []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        encoder.load_state_dict(state["encoder"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        average.load_state_dict(state["average"])
        start, curve = int(state["step"]), list(state["curve"])
    encoder.train()
    mixed = multiplies_in_half(device)
    for step in range(start, settings.steps):
        rng = np.random.default_rng([settings.seed, 71, step])
        batch = augment(gather(studies, slice_index_cached(studies, rng, settings.batch)), rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = slice_loss(network, batch, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_gradients(encoder, 5.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(encoder)
        recent.append(float(loss.detach()))
        if len(recent) == 50:
            curve.append(float(np.mean(recent)))
            recent.clear()
            if progress is not None:
                progress("slices", step + 1, settings.steps, curve[-1])
        if (step + 1) % settings.save_every == 0:
            _save(checkpoint, encoder, optimiser, schedule, average, step + 1, curve)
    encoder.load_state_dict(average.module.state_dict())
    return curve


@torch.no_grad()
def _warm_average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Exponential moving average that forgets its start: the decay grows from 0.2 to 0.99."""
    decay = min(0.99, (1.0 + float(count)) / (10.0 + float(count)))
    for mean, value in zip(averaged, current, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - decay)
        else:
            mean.copy_(value)


def _save(
    path: Path,
    encoder: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.OneCycleLR,
    average: torch.optim.swa_utils.AveragedModel,
    step: int,
    curve: list[float],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    state = {
        "encoder": encoder.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": {k: v for k, v in schedule.state_dict().items() if isinstance(v, int | float | bool | list)},
        "average": average.state_dict(),
        "step": step,
        "curve": curve,
    }
    torch.save(state, temporary)
    os.replace(temporary, path)


def slice_index_cached(studies: Sequence[PreparedStudy], rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Draw from a few random studies only: what :func:`slice_index` does, at a batch's cost."""
    few = rng.choice(len(studies), size=min(len(studies), max(8, count)), replace=False)
    chosen = slice_index([studies[int(i)] for i in few], rng, count)
    return [(int(few[number]), z) for number, z in chosen]


def encode(network: HaemorrhageNetwork, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Run the encoder on a batch."""
    hu = batch.hu.to(device)
    channels = slice_channels(hu[:, 0], batch.mask.to(device), hu[:, 1], hu[:, 2])
    blood, logits, features = network.encoder(channels.contiguous(memory_format=torch.channels_last))
    return blood, logits, features


def slice_loss(network: HaemorrhageNetwork, batch: Batch, device: torch.device) -> Tensor:
    """Cross-entropy of the slice labels (unknown ones left out) plus, where masks are known, of the blood maps."""
    blood, logits, _ = encode(network, batch, device)
    labels = batch.labels.to(device)
    known = ~torch.isnan(labels)
    weight = torch.tensor([1.0] + [0.3] * (OUTPUTS - 1), device=device) * known
    entropy = functional.binary_cross_entropy_with_logits(logits.float(), labels.nan_to_num(0.0), reduction="none")
    loss = (entropy * weight).sum() / weight.sum().clamp(min=1.0)
    if bool(batch.known_blood.any()):
        loss = loss + blood_loss(blood.float(), batch.blood.to(device), batch.known_blood.to(device))
    return loss


def blood_loss(blood: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Weighted cross-entropy and soft Dice of the maps against the mask, at half resolution."""
    kinds = torch.stack([(truth == k).float() for k in range(1, OUTPUTS)], dim=1)
    target = torch.cat([(truth > 0).float()[:, None], kinds], dim=1)
    target = functional.max_pool2d(target, 2)
    weight = torch.tensor([1.0] + [0.25] * (OUTPUTS - 1), device=blood.device).view(1, -1, 1, 1)
    weight = weight * (1.0 + 7.0 * target) * known.view(-1, 1, 1, 1)
    entropy = functional.binary_cross_entropy_with_logits(blood, target, reduction="none")
    p, t = torch.sigmoid(blood[:, 0]) * known.view(-1, 1, 1), target[:, 0]
    dice = 1.0 - (2 * (p * t).sum() + 20.0) / (p.sum() + t.sum() + 20.0)
    return 4.0 * (entropy * weight).mean() + 0.3 * dice


@torch.no_grad()
def study_features(
    network: HaemorrhageNetwork,
    study: PreparedStudy,
    device: torch.device,
    rng: np.random.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Features ``[slices, size]`` and slice logits ``[slices, 6]`` of one study; ``rng`` augments the study."""
    network.encoder.eval()
    batch = gather([study], [(0, z) for z in range(len(study.hu))])
    if rng is not None:
        batch = augment(batch, rng)
    _, logits, features = encode(network, batch, device)
    return features.cpu(), logits.cpu()


def train_study(
    network: HaemorrhageNetwork,
    features: Sequence[Sequence[Tensor]],
    labels: npt.NDArray[np.float32],
    settings: CtSettings,
    progress: Progress | None = None,
) -> list[float]:
    """Stage 2: the attention BiLSTM from study labels alone, the encoder frozen.

    Parameters
    ----------
    features
        Per study one or more variants (plain, augmented) of its slice features.
    labels
        ``[studies, 6]``, NaN where unknown.
    """
    torch.manual_seed(settings.seed + 1)
    rng = np.random.default_rng([settings.seed, 72])
    study = network.study
    study.train()
    optimiser = torch.optim.AdamW(study.parameters(), lr=settings.study_learning_rate, weight_decay=1e-2)
    steps = settings.epochs * max(1, int(np.ceil(len(features) / settings.study_batch)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.study_learning_rate, total_steps=steps + 1)
    curve = []
    for epoch in range(settings.epochs):
        order, losses = rng.permutation(len(features)), []
        for first in range(0, len(order), settings.study_batch):
            chosen = order[first : first + settings.study_batch]
            picked = [features[int(i)][int(rng.integers(len(features[int(i)])))] for i in chosen]
            target = torch.from_numpy(labels[chosen])
            loss = study_loss(network, picked, target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        curve.append(float(np.mean(losses)))
        if progress is not None:
            progress("study", epoch + 1, settings.epochs, curve[-1])
    study.eval()
    return curve


def study_loss(network: HaemorrhageNetwork, picked: Sequence[Tensor], target: Tensor) -> Tensor:
    """Cross-entropy of the study labels; unknown labels are left out."""
    lengths = torch.tensor([len(f) for f in picked])
    padded = torch.nn.utils.rnn.pad_sequence(list(picked), batch_first=True)
    logits, _ = network.study(padded, lengths)
    known = ~torch.isnan(target)
    weight = torch.tensor([1.0] + [0.2] * (OUTPUTS - 1)) * known
    entropy = functional.binary_cross_entropy_with_logits(logits, target.nan_to_num(0.0), reduction="none")
    return (entropy * weight).sum() / weight.sum().clamp(min=1.0)


@torch.no_grad()
def predict_study(
    network: HaemorrhageNetwork, features: Tensor
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Study logits ``[6]`` and attention ``[slices]`` of one study."""
    network.study.eval()
    logits, attention = network.study(features[None], torch.tensor([len(features)]))
    return logits[0].double().numpy(), attention[0].double().numpy()


def architecture(settings: CtSettings) -> dict[str, object]:
    """What rebuilds the network from its metadata."""
    return {"width": settings.width, "features": 48, "hidden": 32}


def settings_record(settings: CtSettings) -> dict[str, object]:
    """Settings as they go into the run record."""
    return dict(asdict(settings))
