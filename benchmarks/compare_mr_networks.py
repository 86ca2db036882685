"""Which network for T2 heads? The shipped slice network beside 3-D DenseNets, for the same processor seconds.

Each learns from the same synthetic scenes for ``--seconds`` of processor time and is judged on the same validation
scenes; seconds a study is what one core needs for a forward pass. The paper's network is a 3-D DenseNet-121.
``python benchmarks/compare_mr_networks.py --seconds 600 --json benchmarks/results/mr_networks.json`` (run alone)
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import DenseNet, DenseNet121
from torch import Tensor, nn
from torch.nn import functional

from inference.abnormality_net import OUTPUTS, AbnormalityNetwork, network_of
from inference.training.evaluation import auc
from inference.training.fit_mr import PURPOSE
from inference.training.loop import multiplies_in_half
from inference.training.make_mr import STAGES
from inference.training.mr_cache import fill_cache, generator_hash
from inference.training.mr_losses import STUDY_WEIGHT, known_bce
from inference.training.train_mr import MrBatch, MrRecipe, Source, collate, file_source
from inference.weights import read_metadata, shipped

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
        return self.network(stack)


class Sliced(nn.Module):
    """The shipped network, as the others are called."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network_of(read_metadata(shipped(PURPOSE)).architecture)

    def forward(self, batch: MrBatch) -> Tensor:
        """Study logits ``[studies, 8]``."""
        return self.network(batch.x, batch.lengths)[3]


def networks() -> dict[str, Callable[[], nn.Module]]:
    """What is compared."""
    k = len(OUTPUTS)
    small = {"init_features": 24, "growth_rate": 12, "block_config": (3, 6, 12, 8)}
    return {
        "slice network with outlines (shipped)": Sliced,
        "slice network, study labels only": Sliced,
        "DenseNet-121, 3-D (the paper's)": lambda: Volumetric(
            DenseNet121(spatial_dims=3, in_channels=1, out_channels=k)
        ),
        "DenseNet, 3-D, small": lambda: Volumetric(DenseNet(spatial_dims=3, in_channels=1, out_channels=k, **small)),
    }


def train(network: nn.Module, sources: list[Source], seconds: float, *, outlines: bool) -> int:
    """Train for so many processor seconds (drawing of the scenes not counted); the number of steps made."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-4)
    recipe = MrRecipe(network.network if outlines else AbnormalityNetwork(16), sources, [], studies_per_batch=3)
    network.train()
    used, steps, epoch = 0.0, 0, 0
    while used < seconds:
        for batch in recipe.batches(epoch):
            start = time.process_time()
            for group in optimiser.param_groups:  # half a cosine over the time there is
                group["lr"] = 3e-3 * 0.5 * (1 + np.cos(np.pi * min(1.0, used / seconds)))
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", enabled=multiplies_in_half(CPU)):
                if outlines:
                    loss = recipe.loss(batch, CPU)
                else:
                    loss = known_bce(network(batch).float(), batch.study_labels, STUDY_WEIGHT)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            used, steps = used + time.process_time() - start, steps + 1
            if used >= seconds:
                break
        epoch += 1
    return steps


@torch.inference_mode()
def judge(network: nn.Module, sources: list[Source]) -> tuple[float, float]:
    """Study AUC of "abnormal", and the median processor seconds of one study."""
    network.eval()
    scores, labels, seconds = [], [], []
    for index, source in enumerate(sources):
        batch = collate([source(np.random.default_rng([999, index]))])
        start = time.process_time()
        scores.append(float(network(batch)[0, 0]))
        seconds.append(time.process_time() - start)
        labels.append(float(batch.study_labels[0, 0]))
    return auc(labels, scores), float(np.median(seconds))


def main() -> None:
    """Train each network in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of processor time, each network")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder = chosen.cache / "mr" / generator_hash()
    training, validation = (
        [s for seed in fill_cache(folder, STAGES[stage]) if (s := file_source(folder, seed)) is not None]
        for stage in ("training", "validation")
    )
    rows = []
    for name, build in networks().items():
        torch.manual_seed(0)
        network = build()
        steps = train(network, training, chosen.seconds, outlines="outlines" in name)
        study_auc, seconds = judge(network, validation)
        weights = sum(p.numel() for p in network.parameters()) / 1e6
        rows.append(
            {"network": name, "weights_million": round(weights, 2), "steps": steps, "study_auc": round(study_auc, 3),
             "cpu_s_per_study": round(seconds, 3)}
        )  # fmt: skip
        print(rows[-1], flush=True)
    if chosen.json:
        document = {"cpu_s_of_training": chosen.seconds, "validation": len(validation), "networks": rows}
        chosen.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
