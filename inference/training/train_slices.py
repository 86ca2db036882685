"""Training of the slice-level model: classes and level together, on drawn heads or on a ranking project."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from inference.calibration import Calibration
from inference.slice_level import CLASSES, LEVEL_UNIT_MM, SliceNet
from inference.training.records import now, package_versions, source_commit
from inference.training.slice_level_data import IGNORE, SliceExamples, draw_examples
from inference.weights import Metadata, OperatingPoint, save_model

BATCH, RATE = 128, 2e-3
WIDTH = 16
Say = Callable[[str], None]


def draw_many(heads: int, seed: int, say: Say) -> SliceExamples:
    """Examples of many heads."""
    parts = []
    for number in range(heads):
        parts.append(draw_examples(seed + number))
        if number % 20 == 19:
            say(f"{number + 1} of {heads} heads drawn")
    return SliceExamples(
        pictures=torch.cat([part.pictures for part in parts]),
        classes=torch.cat([part.classes for part in parts]),
        level_mm=torch.cat([part.level_mm for part in parts]),
    )


def train(examples: SliceExamples, classes: int, *, epochs: int, seed: int, say: Say, augment: bool = True) -> SliceNet:
    """Fit the network; every picture is turned, moved, zoomed, mirrored and changed in brightness anew each time."""
    torch.manual_seed(seed)
    network = SliceNet(classes, WIDTH)
    count = len(examples.classes)
    batch = min(BATCH, max(16, count // 10))
    steps = epochs * -(-count // batch)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        order = torch.randperm(count)
        total = 0.0
        for start in range(0, count, batch):
            chosen = order[start : start + batch]
            pictures = examples.pictures[chosen].float()
            logits, level = network(vary(pictures) if augment else pictures)
            loss = functional.cross_entropy(logits, examples.classes[chosen], ignore_index=IGNORE)
            known = examples.level_mm[chosen].isfinite()
            if known.any():
                wanted = examples.level_mm[chosen][known] / LEVEL_UNIT_MM
                loss = loss + 0.3 * functional.smooth_l1_loss(level[known], wanted)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        say(f"epoch {epoch + 1} of {epochs}: loss {total / (steps / epochs):.4f}")
    return network.eval()


def vary(pictures: torch.Tensor) -> torch.Tensor:
    """Random turn, zoom, shift, mirror and brightness of a batch ``[n, 2, 64, 64]``; the CT channel stays."""
    count = len(pictures)
    turn = torch.randn(count) * 0.12
    zoom = 1 + torch.randn(count) * 0.08
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = torch.randn(count, 2) * 0.06
    cosine, sine = turn.cos() * zoom, turn.sin() * zoom
    rows = [torch.stack([cosine * mirror, -sine, shift[:, 0]], 1), torch.stack([sine * mirror, cosine, shift[:, 1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), [count, 1, *pictures.shape[2:]], align_corners=False)
    grey = functional.grid_sample(pictures[:, :1], grid, align_corners=False)
    grey = grey * (1 + 0.15 * torch.randn(count, 1, 1, 1)) + 0.03 * torch.randn(count, 1, 1, 1)
    grey = (grey + torch.rand(count, 1, 1, 1) * 0.05 * torch.randn_like(grey)).clamp(0, 1.2)
    return torch.cat([grey, pictures[:, 1:]], 1)


def accuracy(network: nn.Module, examples: SliceExamples) -> tuple[float, float]:
    """Share of right classes, and mean absolute error of the level in mm."""
    with torch.inference_mode():
        pictures = examples.pictures
        parts = [network(pictures[at : at + 256].float()) for at in range(0, len(pictures), 256)]
    said = torch.cat([part[0] for part in parts]).argmax(1)
    level = torch.cat([part[1] for part in parts]) * LEVEL_UNIT_MM
    kept = examples.classes != IGNORE
    known = examples.level_mm.isfinite()
    right = float((said[kept] == examples.classes[kept]).float().mean())
    error = float((level[known] - examples.level_mm[known]).abs().mean()) if known.any() else float("nan")
    return right, error


def save(
    folder: Path, network: SliceNet, classes: tuple[str, ...], name: str, record: dict[str, object], version: str
) -> Metadata:
    """Write a model folder."""
    metadata = Metadata(
        name=name,
        version=version,
        purpose="slice_level",
        architecture={"classes": list(classes), "width": WIDTH},
        operating_points={"even": OperatingPoint(threshold=0.5)},
        default_operating_point="even",
        calibration=Calibration(kind="temperature", slope=1.0, intercept=0.0, identifier="none"),
        training=record,
        intended_use="Research only. Places axial head slices; drops slices without brain before inference.",
    )
    return save_model(folder, network.state_dict(), metadata)


def train_default(folder: Path, *, heads: int, epochs: int, seed: int, say: Say, version: str = "1.1.0") -> Metadata:
    """Train the shipped model on drawn heads; a tenth as many other heads are held out and the accuracy recorded."""
    started = now()
    held_out = draw_many(max(1, heads // 10), 500_000 + seed, say)
    examples = draw_many(heads, seed, say)
    network = train(examples, len(CLASSES), epochs=epochs, seed=seed, say=say)
    right, error_mm = accuracy(network, held_out)
    say(f"held-out synthetic heads: {right:.3f} of the classes right, level off by {error_mm:.1f} mm on average")
    record: dict[str, object] = {
        "synthetic": True,
        "data": f"{heads} drawn heads, CT and MR of random contrast, faces varied; drawn bodies and phantoms",
        "data_sha256": data_hash(examples),
        "heads": heads,
        "epochs": epochs,
        "seed": seed,
        "slices": len(examples.classes),
        "held_out_synthetic": {"accuracy": round(right, 4), "level_error_mm": round(error_mm, 2)},
        "started": started,
        "finished": now(),
        "commit": source_commit(),
        "versions": package_versions(),
    }
    return save(folder, network, CLASSES, "falx-slice-level", record, version)


def data_hash(examples: SliceExamples) -> str:
    """SHA-256 over pictures, classes and levels."""
    digest = hashlib.sha256()
    for tensor in (examples.pictures, examples.classes, examples.level_mm):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
