"""Stand-ins for training tests: phantom heads as DICOM with a label file, and a recipe that trains in a second."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inference.training.dicom_writer import SeriesHeader, synthetic_uid, write_series
from inference.training.loop import LoopSettings, Trainer
from inference.volume import Geometry, SliceSource, Volume

SPACING_MM = (6.0, 2.0, 2.0)
SHAPE = (24, 110, 96)


def phantom(seed, lesion, key="phantom"):
    """An MR head of ellipsoids (brain 400, skull 40, scalp 900) with or without a bright ball; its truth per slice."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    scale = rng.uniform(0.95, 1.05)

    def inside(rz, ry, rx):
        zz, yy, xx = z * SPACING_MM[0] - 70, y * SPACING_MM[1] - 110, x * SPACING_MM[2] - 96
        return (zz / rz) ** 2 + (yy / ry) ** 2 + (xx / rx) ** 2 < scale**2

    signal = np.abs(rng.normal(0, 8, SHAPE))
    for radii, value in (((80, 104, 86), 900), ((74, 97, 79), 40), ((66, 88, 70), 400), ((14, 20, 12), 1200)):
        signal[inside(*radii)] = value
    centre = (rng.uniform(50, 90), rng.uniform(80, 140), rng.choice([66, 126]))
    zz, yy, xx = z * SPACING_MM[0] - centre[0], y * SPACING_MM[1] - centre[1], x * SPACING_MM[2] - centre[2]
    ball = (zz / 14) ** 2 + (yy / 14) ** 2 + (xx / 14) ** 2 < 1
    if lesion:
        signal[ball] = 1000
    signal = np.round(np.clip(signal + rng.normal(0, 12, SHAPE), 0, None) * rng.uniform(0.5, 2)).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, SPACING_MM[2]], [0, SPACING_MM[1], 0], [SPACING_MM[0], 0, 0]]
    geometry = Geometry(
        shape_zyx=SHAPE,
        affine_lps_mm=affine,
        frame_of_reference_uid="",
        slices=tuple(
            SliceSource(sop_instance_uid=synthetic_uid(key, seed, i), sop_class_uid="1.2.840.10008.5.1.4.1.1.4")
            for i in range(SHAPE[0])
        ),
        positions_mm=tuple(SPACING_MM[0] * i for i in range(SHAPE[0])),
    )
    shown = ball.any(axis=(1, 2)) if lesion else np.zeros(SHAPE[0], bool)
    return Volume(voxels=signal, geometry=geometry, modality="MR"), shown


def write_phantoms(folder: Path, count: int, first_seed: int = 0) -> tuple[Path, list[Path]]:
    """Write phantoms, every other one with a lesion; return the folder and the two label files (studies, slices)."""
    rows, slices = [], []
    for number in range(count):
        seed, lesion = first_seed + number, number % 2 == 1
        volume, shown = phantom(seed, lesion)
        key = f"phantom-{seed}"
        write_series(volume, SeriesHeader(key=key, modality="MR", age_years=50, slice_thickness_mm=6), folder / key)
        study = synthetic_uid(key, "study")
        rows.append({"study_instance_uid": study, "abnormal": int(lesion), "mass": int(lesion), "site": "x"})
        for source, value in zip(volume.geometry.slices, shown, strict=True):
            slices.append({"sop_instance_uid": source.sop_instance_uid, "abnormal": int(value)})
    return folder, [_write(folder.parent / f"{folder.name}-{n}.csv", r) for n, r in (("s", rows), ("z", slices))]


def _write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


class LineRecipe:
    """Learns y = 3 x - 1; slow on purpose when ``pause_s`` is set, so that a test can kill it."""

    def __init__(self, pause_s=0.0):
        torch.manual_seed(7)
        self.network, self.pause_s = nn.Linear(1, 1), pause_s

    def batch_count(self):
        return 5

    def batches(self, epoch):
        rng = np.random.default_rng([1, epoch])
        for _ in range(5):
            time.sleep(self.pause_s)
            yield torch.from_numpy(rng.normal(size=(16, 1)).astype(np.float32))

    def loss(self, batch, device):
        return ((self.network(batch) - (3 * batch - 1)) ** 2).mean()

    def validate(self, device):
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"score": -float(((self.network(x) - (3 * x - 1)) ** 2).mean())}


def train_line(folder, epochs, pause_s=0.0, patience=99, resume=True):
    """Train the line in ``folder`` and return what came out."""
    settings = LoopSettings(epochs=epochs, patience=patience, learning_rate=0.1, seed=3)
    recipe = LineRecipe(pause_s)
    return Trainer(recipe, Path(folder), settings, torch.device("cpu")).run(resume=resume, show_progress=False)


if __name__ == "__main__":  # python fixtures_training.py FOLDER EPOCHS PAUSE_S
    train_line(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
