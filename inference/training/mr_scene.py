"""A synthetic head as tissue fractions, from which any T2 contrast can be rendered (SynthSeg: Billot et al. 2023).

Signal is linear in the fractions, so a lesion is written as a mixture of tissues too (oedema: some white matter, some
fluid). One scene then serves every scanner, and training draws a new contrast each time it looks at one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inference.training.anatomy import Head, Tissue, sigmoid, smooth_noise
from inference.training.canvas import Window, nearest_voxel
from inference.training.head_shapes import Point, capsules

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

TISSUES = ("white", "grey", "deep", "csf", "void", "bone", "soft", "fat", "marrow")  # what is missing to 1 is air
# signal on a usual T2 scan relative to white matter, by which a lesion is judged to show or not
USUAL_SIGNAL = np.array([1.0, 1.4, 1.1, 3.2, 0.25, 0.1, 0.6, 1.5, 0.6], np.float32)
VISIBLE_CHANGE = 0.15  # of white matter's signal: about twice a usual scan's noise, as 8 HU are on CT
ARTERIES: tuple[tuple[Point, Point, float], ...] = (
    ((0, -24, -52), (0, -13, -19), 1.7),  # basilar
    ((-12, 0, -32), (-14, 5, -15), 2.1),  # internal carotids
    ((12, 0, -32), (14, 5, -15), 2.1),
    ((-14, 5, -15), (-36, 2, -15), 1.4),  # middle cerebral
    ((14, 5, -15), (36, 2, -15), 1.4),
    ((-36, 2, -15), (-42, -14, 4), 1.0),
    ((36, 2, -15), (42, -14, 4), 1.0),
    ((-14, 5, -15), (-2, 24, -8), 1.1),  # anterior cerebral
    ((14, 5, -15), (2, 24, -8), 1.1),
)


@dataclass(slots=True)
class Scene:
    """A head while lesions are painted into it.

    Attributes
    ----------
    fractions
        ``[tissue, z, y, x]`` in the order of :data:`TISSUES`, summing to at most 1.
    lesions
        By category of ``inference.labels``: 0..1 ``[z, y, x]``.
    facts
        What was drawn, for the table of truths.
    """

    head: Head
    fractions: Array
    lesions: dict[str, Array] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)

    def window(self, centre: Point, reach_mm: float) -> Window:
        """The block of voxels within ``reach_mm`` of a template position."""
        bounds = []
        nearest = nearest_voxel(self.head, centre)
        for index, size, step in zip(nearest, self.head.labels.shape, self.head.spacing_zyx_mm, strict=True):
            reach = int(np.ceil(reach_mm / step)) + 1
            bounds.append(slice(max(0, index - reach), min(size, index + reach + 1)))
        return bounds[0], bounds[1], bounds[2]

    def offset(self, window: Window, centre: Point) -> Array:
        """Template coordinates relative to ``centre`` ``[3, z, y, x]``."""
        return self.head.ras_mm[(slice(None), *window)] - np.array(centre, np.float32)[:, None, None, None]

    def noise(self, rng: np.random.Generator, window: Window, scale_mm: float) -> Array:
        """Smooth unit noise inside a window."""
        shape = self.head.labels[window].shape
        return smooth_noise(rng, (shape[0], shape[1], shape[2]), self.head.spacing_zyx_mm, scale_mm)

    def paint(self, window: Window, fraction: Array, mixture: Mapping[str, float], category: str = "") -> None:
        """Replace ``fraction`` of what is there by a mixture of tissues.

        With ``category``, record it as a lesion where it changes the picture: what nobody could see is no finding.
        """
        block = self.fractions[(slice(None), *window)]
        before = np.tensordot(USUAL_SIGNAL, block, axes=1) if category else None
        block *= 1.0 - fraction
        for tissue, share in mixture.items():
            block[TISSUES.index(tissue)] += share * fraction
        if before is not None:
            change = np.abs(np.tensordot(USUAL_SIGNAL, block, axes=1) - before)
            whole = self.lesions.setdefault(category, np.zeros(self.head.labels.shape, np.float32))
            np.maximum(whole[window], np.where(change >= VISIBLE_CHANGE, fraction, 0.0), out=whole[window])

    def site(self, rng: np.random.Generator, where: Callable[[Mapping[str, Array], Array], Mask]) -> Point:
        """A random position at which ``where(distances, ras)`` is true; the middle of the head when nowhere is."""
        steps = (slice(None, None, 2), slice(None, None, 3), slice(None, None, 3))
        ras = self.head.ras_mm[(slice(None), *steps)]
        distances = {name: d[steps] for name, d in self.head.distance_mm.items()}
        distances["brain"] = self.fractions[(slice(0, 3), *steps)].sum(axis=0)
        found = np.flatnonzero(where(distances, ras) & (distances["cavity"] < -2) & (ras[2] > -55))
        if not len(found):
            return 20.0, -10.0, 20.0
        x, y, z = ras.reshape(3, -1)[:, rng.choice(found)]
        return float(x), float(y), float(z)


def mixture_of(brightness: float) -> dict[str, float]:
    """A lesion between cortex and fluid (1), a fifth of the way at least: on T2 oedema and gliosis outshine cortex."""
    return {"grey": 0.8 * (1.0 - brightness), "csf": 0.2 + 0.8 * brightness}


def compose(rng: np.random.Generator, head: Head) -> Scene:
    """Turn a head into tissue fractions: brain from its partial volumes, all else from its labels."""
    labels, distance = head.labels, head.distance_mm
    fractions = np.zeros((len(TISSUES), *labels.shape), np.float32)
    put = {name: fractions[i] for i, name in enumerate(TISSUES)}
    deep = sigmoid(-distance["deep_grey"] / 0.8) * float(rng.uniform(0.5, 1.0))
    put["deep"][:] = deep * (head.grey + head.white)
    put["grey"][:] = (1 - deep) * head.grey
    put["white"][:] = (1 - deep) * head.white
    put["csf"][:] = head.csf
    outside = np.clip(1.0 - head.grey - head.white - head.csf, 0.0, 1.0)
    put["bone"][:] = outside * (labels == Tissue.BONE)
    put["marrow"][:] = outside * (labels == Tissue.DIPLOE)
    put["fat"][:] = outside * (labels == Tissue.FAT)
    put["soft"][:] = outside * np.isin(labels, (Tissue.SOFT_TISSUE, Tissue.MUSCLE))
    put["csf"][:] += outside * (labels == Tissue.GLOBE)
    scene = Scene(head, fractions)
    # dura and inner table: dark, and close to the brain in the young, whose fluid rim is thin
    rim_mm = float(rng.uniform(0.0, 2.2)) * (1.0 - head.traits.atrophy)
    rim = sigmoid((distance["cavity"] + rim_mm) / 0.5) * sigmoid((1.5 - distance["cavity"]) / 0.4)
    scene.paint((slice(None), slice(None), slice(None)), rim, {"bone": 1.0})
    _vessels(rng, scene)
    return scene


def _vessels(rng: np.random.Generator, scene: Scene) -> None:
    """Flow voids of the sinuses and of the arteries of the circle of Willis, and the dark folds of dura."""
    everywhere = (slice(None), slice(None), slice(None))
    distance = scene.head.distance_mm
    inside = sigmoid(-distance["cavity"] / 0.5)
    scene.paint(everywhere, inside * sigmoid(-distance["venous"] / 0.5), {"void": 1.0})
    folds = np.minimum(distance["falx"], distance["tentorium"])
    scene.paint(everywhere, 0.6 * inside * sigmoid((0.4 - folds) / 0.4), {"bone": 0.7, "csf": 0.3})
    window = scene.window((0.0, 0.0, -16.0), 56.0)
    x, y, z = scene.head.ras_mm[(slice(None), *window)]
    jitter = rng.normal(0, 1.2, (len(ARTERIES), 2, 3))
    tubes = [
        (_shift(a, j[0]), _shift(b, j[1]), r * float(rng.uniform(0.8, 1.25)))
        for (a, b, r), j in zip(ARTERIES, jitter, strict=True)
    ]
    arteries = sigmoid(-capsules(x, y, z, tubes) / 0.4)
    scene.paint(window, inside[window] * arteries, {"void": 1.0})


def _shift(point: Point, by: npt.NDArray[np.float64]) -> Point:
    return point[0] + float(by[0]), point[1] + float(by[1]), point[2] + float(by[2])
