"""The recipe of the MR abnormality model: samples, augmentation, losses, validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from inference.abnormality_net import OUTPUTS, AbnormalityNetwork, fast_layout, slice_channels
from inference.mr_input import OUTSIDE, PIXEL_MM, normalise
from inference.training.evaluation import auc
from inference.training.mr_cache import CachedScene, cached_scene
from inference.training.mr_losses import STUDY_WEIGHT, known_bce, map_loss, tissue_loss
from inference.training.mr_signal import SCANNERS, Landmarks, landmarks, render

Array = npt.NDArray[np.float32]
ATROPHY = OUTPUTS.index("atrophy")
# darker and sharper nuclei than the cohort has: real ones beside a lesion were taken for flow voids (ADR 0068)
TRAINED_ON = replace(SCANNERS["wide"], iron=(0.0, 1.3), edge=(3.0, 10.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class MrSample:
    """One study as the network trains on it; NaN marks an unknown label.

    ``image`` and ``mask`` are ``[n, SIZE, SIZE]``; ``lesions`` ``[n, 8, SIZE / 2, SIZE / 2]`` 0..1 or None (a
    hospital has no outlines); ``slice_labels`` ``[n, 8]``; ``study_labels`` ``[8]``; ``step_mm`` between slices;
    ``tissue`` ``[n, 5, SIZE / 2, SIZE / 2]``, shares of white and grey matter, fluid, all else, lesion, or None.
    """

    image: Array
    mask: Array
    lesions: Array | None
    slice_labels: Array
    study_labels: Array
    step_mm: float = 5.0
    tissue: Array | None = None


Source = Callable[[np.random.Generator], MrSample]


def cut_scene(scene: CachedScene, rng: np.random.Generator, count: int) -> CachedScene:
    """A run of ``count`` neighbouring slices, mostly one that shows a lesion; the labels are what is left in it."""
    length = len(scene.mask)
    if length <= count:
        return scene
    shown = np.flatnonzero(scene.slice_labels[:, 0])
    if len(shown) and rng.random() < 0.8:
        first = int(rng.choice(shown)) - int(rng.integers(0, count))
    else:
        first = int(rng.integers(0, length - count + 1))
    first = min(max(first, 0), length - count)
    kept = slice(first, first + count)
    slice_labels = scene.slice_labels[kept]
    study = np.asarray(slice_labels.any(axis=0), np.bool_)
    study[ATROPHY] = scene.study_labels[ATROPHY]
    study[0] = study[1:].any()
    return CachedScene(
        fractions=scene.fractions[:, kept],
        lesions=scene.lesions[:, kept],
        mask=scene.mask[kept],
        step_mm=scene.step_mm,
        slice_labels=slice_labels,
        study_labels=study,
    )


def file_source(folder: Path, seed: int, *, slices: int | None = None) -> Source | None:
    """A cached study, on a new scanner each time it is asked for; None when the scene holds no usable head.

    With ``slices`` it shows that many neighbouring slices only: less to look at, more to learn from each second.
    """
    if cached_scene(folder, seed) is None:
        return None
    return lambda rng: _from_file(folder, seed, rng, slices)


def _from_file(folder: Path, seed: int, rng: np.random.Generator, slices: int | None) -> MrSample:
    scene = cached_scene(folder, seed)
    if scene is None:
        raise FileNotFoundError(f"{folder}/{seed:07d}.npz changed during training; train again")
    at = landmarks(scene.fractions)
    return sample_of_scene(scene if slices is None else cut_scene(scene, rng, slices), rng, at)


def sample_of_scene(scene: CachedScene, rng: np.random.Generator, at: Landmarks | None = None) -> MrSample:
    """Render a cached scene; ``at``: landmarks of the whole, when it is a part."""
    fractions = scene.fractions.astype(np.float32) / 255.0
    pixel_mm = float(rng.uniform(*TRAINED_ON.pixel_mm))
    signal = render(rng, fractions, (scene.step_mm, PIXEL_MM, PIXEL_MM), TRAINED_ON, native_pixel_mm=pixel_mm, at=at)
    mask = scene.mask.astype(np.float32)
    slice_labels = scene.slice_labels.astype(np.float32)
    if scene.study_labels[ATROPHY]:  # it shows on every slice and on none
        slice_labels[slice_labels[:, 0] == 0, 0] = np.nan
        slice_labels[:, ATROPHY] = np.nan
    half = _half(scene.lesions)
    return MrSample(
        image=normalise(signal, mask, scene.step_mm),
        mask=mask,
        lesions=half,
        tissue=_tissue(fractions, half[:, :1]),
        slice_labels=slice_labels,
        study_labels=scene.study_labels.astype(np.float32),
        step_mm=scene.step_mm,
    )


def _half(lesions: npt.NDArray[np.uint8]) -> Array:
    """Maximum over 2 x 2 pixels, any category first: what the network's map is held against."""
    rows = np.maximum(lesions[:, :, ::2], lesions[:, :, 1::2])
    blocks = np.maximum(rows[..., ::2], rows[..., 1::2])
    both = np.concatenate([blocks.max(axis=0, keepdims=True), blocks]).transpose(1, 0, 2, 3)
    return np.asarray(both, np.float32) / np.float32(255.0)


def _tissue(fractions: Array, lesion: Array) -> Array:
    """Mean over 2 x 2 pixels of what the network learns to tell apart, lesions ``[n, 1, ...]`` taking their share."""
    white, grey, deep, fluid = fractions[:4]
    shares = np.stack([white, grey + deep, fluid], axis=1)
    mean = (shares[..., ::2, ::2] + shares[..., 1::2, ::2] + shares[..., ::2, 1::2] + shares[..., 1::2, 1::2]) / 4
    healthy = np.concatenate([mean, np.clip(1.0 - mean.sum(axis=1, keepdims=True), 0.0, 1.0)], axis=1)
    return np.asarray(np.concatenate([healthy * (1.0 - lesion), lesion], axis=1), np.float32)


def _warp(stack: Array, matrix: Array) -> Array:
    """Resample ``[n, channel, y, x]`` in plane by a 2 x 3 matrix in normalised coordinates; 0 beyond the edge."""
    image = torch.from_numpy(np.ascontiguousarray(stack))
    theta = torch.from_numpy(matrix)[None].expand(len(stack), 2, 3)
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return np.asarray(functional.grid_sample(image, grid, align_corners=False).numpy(), np.float32)


def augment(sample: MrSample, rng: np.random.Generator) -> MrSample:
    """Turn, scale, shift and mirror in plane; cut slices off the ends; change gamma a little."""
    angle, zoom = np.deg2rad(rng.normal(0, 6)), float(np.exp(rng.normal(0, 0.05)))
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom @ np.diag([mirror, 1.0])
    matrix = np.concatenate([turn, rng.normal(0, 0.03, (2, 1))], axis=1).astype(np.float32)
    spare = 2 if len(sample.image) >= 8 else 0
    first = int(rng.integers(0, spare + 1)) if rng.random() < 0.3 else 0
    last = len(sample.image) - (int(rng.integers(0, spare + 1)) if rng.random() < 0.3 else 0)
    stack = np.stack([sample.image[first:last] - np.float32(OUTSIDE), sample.mask[first:last]], axis=1)
    warped = _warp(stack, matrix)  # beyond the edge lies what lies outside the mask
    image = warped[:, 0] + np.float32(OUTSIDE)
    gamma = np.float32(np.exp(rng.normal(0, 0.08)))
    image = np.sign(image) * np.abs(image) ** gamma
    return replace(
        sample,
        image=image,
        mask=(warped[:, 1] > 0.5).astype(np.float32),
        lesions=_warp(sample.lesions[first:last], matrix) if sample.lesions is not None else None,
        tissue=_warp(sample.tissue[first:last], matrix) if sample.tissue is not None else None,
        slice_labels=sample.slice_labels[first:last],
    )


@dataclass(frozen=True, slots=True)
class MrBatch:
    """Studies laid end to end."""

    x: Tensor
    lengths: tuple[int, ...]
    lesions: Tensor | None
    slice_labels: Tensor
    study_labels: Tensor
    tissue: Tensor | None = None


def collate(samples: Sequence[MrSample]) -> MrBatch:
    """Lay studies end to end; lesion and tissue maps count only when every study has them."""
    lengths = tuple(len(s.image) for s in samples)
    image, mask = (torch.from_numpy(np.concatenate([getattr(s, n) for s in samples])) for n in ("image", "mask"))
    return MrBatch(
        slice_channels(image, mask, lengths).contiguous(memory_format=torch.channels_last),
        lengths,
        _together([s.lesions for s in samples]),
        torch.from_numpy(np.concatenate([s.slice_labels for s in samples])),
        torch.from_numpy(np.stack([s.study_labels for s in samples])),
        _together([s.tissue for s in samples]),
    )


def _together(fields: Sequence[Array | None]) -> Tensor | None:
    """One tensor of all studies' fields; None unless every study has its own."""
    known = [field for field in fields if field is not None]
    return torch.from_numpy(np.concatenate(known)) if len(known) == len(fields) else None


class EpochBatches(Dataset[MrBatch]):
    """The batches of one epoch by number, each drawn from its own seed."""

    def __init__(
        self, sources: Sequence[Source], order: npt.NDArray[np.int64], size: int, seed: tuple[int, int], count: int
    ) -> None:
        self.sources, self.order, self.size, self.seed, self.count = sources, order, size, seed, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> MrBatch:
        rng = np.random.default_rng([*self.seed, index])
        chosen = self.order[index * self.size : (index + 1) * self.size]
        return collate([augment(self.sources[i](rng), rng) for i in chosen])


class MrRecipe:
    """What :class:`inference.training.loop.Trainer` needs to train the MR model."""

    def __init__(
        self,
        network: AbnormalityNetwork,
        training: Sequence[Source],
        validation: Sequence[Source],
        *,
        seed: int = 0,
        studies_per_batch: int = 4,
        repeats: int = 1,
        loaders: int = 0,
    ) -> None:
        self.network = fast_layout(network)
        self.training, self.validation = training, validation
        self.seed, self.size, self.repeats = seed, studies_per_batch, repeats  # looks at each study in an epoch
        self.loaders = loaders  # processes that draw batches beside the training

    def batch_count(self) -> int:
        """Return how many batches an epoch has."""
        return max(1, self.repeats * len(self.training) // self.size)

    def batches(self, epoch: int) -> Iterator[MrBatch]:
        """Yield batches in an order drawn from seed and epoch, the same however many loaders draw them."""
        rng = np.random.default_rng([self.seed, epoch])
        order = np.concatenate([rng.permutation(len(self.training)) for _ in range(self.repeats)])
        drawn = EpochBatches(self.training, order, self.size, (self.seed, epoch), self.batch_count())
        fork = "fork" if self.loaders else None  # sources are closures: they cannot be sent to a spawned process
        yield from DataLoader(drawn, batch_size=None, num_workers=self.loaders, multiprocessing_context=fork)

    def loss(self, batch: MrBatch, device: torch.device) -> Tensor:
        """Study and slice cross-entropy, and where outlines are known that of the map with its overlap."""
        answers = self.network.with_tissue(batch.x.to(device), batch.lengths)
        maps, slices, _, study, tissue = (answer.float() for answer in answers)  # sums need more than half precision
        total = known_bce(study, batch.study_labels.to(device), STUDY_WEIGHT)
        total = total + 0.7 * known_bce(slices, batch.slice_labels.to(device), STUDY_WEIGHT)
        if batch.lesions is None:
            return total
        inside = functional.max_pool2d(batch.x[:, -1:].to(device), 2)
        total = total + map_loss(maps, batch.lesions.to(device), inside)
        return total if batch.tissue is None else total + 2.0 * tissue_loss(tissue, batch.tissue.to(device), inside)

    def validate(self, device: torch.device) -> dict[str, float]:
        """Study AUC of abnormal (the score; less the loss where one class is absent), its loss, the slice AUC."""
        logits, labels, slice_logits, slice_labels = self.predict(device)
        known = ~np.isnan(slice_labels[:, 0])
        loss = float(known_bce(torch.from_numpy(logits), torch.from_numpy(labels), STUDY_WEIGHT))
        study = auc(labels[:, 0] > 0.5, logits[:, 0])
        return {
            "score": -loss if np.isnan(study) else study,
            "slice_auc": auc(slice_labels[known, 0] > 0.5, slice_logits[known, 0]),
            "validation_loss": loss,
        }

    def predict(self, device: torch.device) -> tuple[Array, Array, Array, Array]:
        """Study logits and labels ``[n, 8]``, slice logits and labels ``[m, 8]`` of the validation studies."""
        parts: list[tuple[Array, Array, Array, Array]] = []
        for index, source in enumerate(self.validation):
            batch = collate([source(np.random.default_rng([self.seed, 999, index]))])
            _, slices, _, study = self.network(batch.x.to(device), batch.lengths)
            found = (study.cpu().numpy(), batch.study_labels.numpy(), slices.cpu().numpy(), batch.slice_labels.numpy())
            parts.append(found)
        stacked = [np.concatenate([p[i] for p in parts]) for i in range(4)]
        return stacked[0], stacked[1], stacked[2], stacked[3]
