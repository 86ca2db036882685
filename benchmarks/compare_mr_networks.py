"""Which network for T2 heads? The shipped slice network beside 3-D DenseNets, for the same processor seconds.

Each learns from nothing on the same synthetic scenes for ``--seconds`` of processor time and is judged on the same
validation scenes; seconds a study is what one core needs for a forward pass. The paper's network is a 3-D DenseNet-121.
The shipped network learns as it does when it is made: with outlines, on runs of neighbouring slices.
``python benchmarks/compare_mr_networks.py --seconds 1000 --json benchmarks/results/mr_networks.json``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from monai.networks.nets import DenseNet, DenseNet121
from torch import Tensor, nn
from torch.nn import functional

from inference.abnormality_net import OUTPUTS, AbnormalityNetwork, fast_layout, network_of
from inference.training.evaluation import auc, bootstrap
from inference.training.fit_mr import PURPOSE
from inference.training.loop import clip_gradients, multiplies_in_half
from inference.training.make_mr import SLICES, STAGES
from inference.training.mr_cache import fill_cache, generator_hash
from inference.training.mr_losses import STUDY_WEIGHT, known_bce
from inference.training.train_mr import MrBatch, MrRecipe, MrSample, Source, collate, file_source
from inference.weights import read_metadata, shipped

Array = npt.NDArray[np.float64]
LEARNING_RATE = 3e-3
LOOKS = 4  # at each study that is read whole; turned, scaled and mirrored anew each time
DEPTH = 32  # the DenseNets read a block of fixed depth, which they halve five times
CPU = torch.device("cpu")


class Volumetric(nn.Module):
    """A 3-D classifier that reads the same slices and mask as the slice network, brought to a block of fixed depth."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: MrBatch) -> Tensor:
        """Study logits ``[studies, 8]``."""
        blocks = [part[:, 1] for part in batch.x.split(list(batch.lengths))]
        size = (DEPTH, blocks[0].shape[1], blocks[0].shape[2])
        stack = torch.stack([functional.interpolate(b[None, None], size=size, mode="trilinear")[0] for b in blocks])
        # torch 2.13.0: the gradients of 3-D convolutions in bfloat16 are NaN on an AMD processor
        with torch.autocast("cpu", enabled=False):
            return self.network(stack)


class Sliced(nn.Module):
    """The shipped network, as the others are called."""

    def __init__(self) -> None:
        super().__init__()
        self.network = fast_layout(network_of(read_metadata(shipped(PURPOSE)).architecture))

    def forward(self, batch: MrBatch) -> Tensor:
        """Study logits ``[studies, 8]``."""
        return self.network(batch.x, batch.lengths)[3]


class Arm:
    """One network in training, with the processor seconds it has used."""

    def __init__(self, name: str, network: nn.Module, *, outlines: bool = False) -> None:
        self.name, self.network, self.outlines = name, network.train(), outlines
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
        self.used, self.steps = 0.0, 0

    def step(self, batch: MrBatch, recipe: MrRecipe, seconds: float) -> None:
        """Learn from a batch, the learning rate half a cosine over the time there is."""
        start = time.process_time()
        for group in self.optimiser.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * min(1.0, self.used / seconds)))
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", enabled=multiplies_in_half(CPU)):
            if self.outlines:
                loss = recipe.loss(batch, CPU)
            else:
                loss = known_bce(self.network(batch).float(), batch.study_labels, STUDY_WEIGHT)
        loss.backward()
        clip_gradients(self.network, 5.0)
        self.optimiser.step()
        self.used, self.steps = self.used + time.process_time() - start, self.steps + 1


def arms() -> tuple[Arm, list[Arm]]:
    """The shipped network, and what reads whole studies and their labels alone; each starts from the same seed."""
    k = len(OUTPUTS)
    small = {"init_features": 24, "growth_rate": 12, "block_config": (3, 6, 12, 8)}
    whole: dict[str, Callable[[], nn.Module]] = {
        "slice network, study labels only": Sliced,
        "DenseNet-121, 3-D (the paper's)": lambda: Volumetric(
            DenseNet121(spatial_dims=3, in_channels=1, out_channels=k)
        ),
        "DenseNet, 3-D, small": lambda: Volumetric(DenseNet(spatial_dims=3, in_channels=1, out_channels=k, **small)),
    }
    torch.manual_seed(0)
    shipped_one = Arm("slice network with outlines (shipped)", Sliced(), outlines=True)
    others = []
    for name, build in whole.items():
        torch.manual_seed(0)
        others.append(Arm(name, build()))
    return shipped_one, others


def kept_looks(sources: Sequence[Source], looks: int) -> list[Source]:
    """Draw each study ``looks`` times beforehand: these networks learn faster than studies are drawn. No outlines."""
    kept: list[Source] = []
    for number in range(looks * len(sources)):
        drawn = sources[number % len(sources)](np.random.default_rng([555, number]))
        blank = np.zeros(0, np.float32)
        labels = replace(drawn, image=blank, mask=blank, lesions=None, tissue=None)
        kept.append(partial(_kept, drawn.image.astype(np.float16), drawn.mask.astype(np.bool_), labels))
        if (number + 1) % len(sources) == 0:
            print(f"looks {(number + 1) // len(sources)} of {looks} drawn", flush=True)
    return kept


def _kept(image: npt.NDArray[np.float16], mask: npt.NDArray[np.bool_], labels: MrSample, _rng: object) -> MrSample:
    return replace(labels, image=image.astype(np.float32), mask=mask.astype(np.float32))


def train(group: list[Arm], recipe: MrRecipe, seconds: float) -> None:
    """Train arms on the same batches for so many processor seconds each (drawing the batches not counted)."""
    epoch = 0
    while any(arm.used < seconds for arm in group):
        for batch in recipe.batches(epoch):
            for arm in group:
                if arm.used < seconds:
                    arm.step(batch, recipe, seconds)
            if all(arm.used >= seconds for arm in group):
                break
        epoch += 1
        print(f"epoch {epoch}: " + ", ".join(f"{arm.name} {arm.steps} steps" for arm in group), flush=True)


@torch.inference_mode()
def judge(network: nn.Module, sources: list[Source]) -> tuple[Array, Array, float]:
    """Labels and scores of "abnormal", and the median processor seconds of one study."""
    network.eval()
    scores, labels, seconds = [], [], []
    for index, source in enumerate(sources):
        batch = collate([source(np.random.default_rng([999, index]))])
        start = time.process_time()
        scores.append(float(network(batch)[0, 0]))
        seconds.append(time.process_time() - start)
        labels.append(float(batch.study_labels[0, 0]))
    return np.array(labels), np.array(scores), float(np.median(seconds))


def with_interval(labels: Array, scores: Array, other: Array | None = None) -> tuple[float, float, float]:
    """AUC, or how much it is above that of ``other`` on the same studies, with its 95 % interval over studies."""

    def figure(index: npt.NDArray[np.int64]) -> float:
        return auc(labels[index], scores[index]) - (auc(labels[index], other[index]) if other is not None else 0.0)

    everything = np.arange(len(labels))
    low, high = bootstrap([str(i) for i in everything], figure)
    return round(figure(everything), 3), round(low, 3), round(high, 3)


def main() -> None:
    """Train each network in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1000, help="of processor time, each network")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder = chosen.cache / "mr" / generator_hash()
    seeds = fill_cache(folder, STAGES["training"])
    training, runs, validation = (
        [s for seed in found if (s := file_source(folder, seed, slices=slices)) is not None]
        for found, slices in ((seeds, None), (seeds, SLICES), (fill_cache(folder, STAGES["validation"]), None))
    )
    first, others = arms()
    train([first], MrRecipe(first.network.network, runs, [], studies_per_batch=5), chosen.seconds)
    whole = kept_looks(training, LOOKS)
    train(others, MrRecipe(AbnormalityNetwork(16), whole, [], studies_per_batch=3), chosen.seconds)
    rows: list[dict[str, object]] = []
    shipped_scores = None
    for arm in [first, *others]:
        labels, scores, seconds = judge(arm.network, validation)
        shipped_scores = scores if shipped_scores is None else shipped_scores
        row = {
            "network": arm.name,
            "weights_million": round(sum(p.numel() for p in arm.network.parameters()) / 1e6, 2),
            "steps": arm.steps,
            "study_auc": with_interval(labels, scores),
            "above_shipped": with_interval(labels, scores, shipped_scores),
            "cpu_s_per_study": round(seconds, 3),
        }
        rows.append(row)
        print(row, flush=True)
    if chosen.json:
        document = {"cpu_s_of_training": chosen.seconds, "validation": len(validation), "networks": rows}
        chosen.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
