"""A mass on T2: glioma, metastasis, meningioma, cyst, tumours of the angle and of the sella.

It is planned before anything is painted, because it displaces the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from inference.training.anatomy import Head
from inference.training.canvas import push_brain
from inference.training.head_shapes import Point
from inference.training.mr_lesions import blob
from inference.training.mr_scene import Scene, mixture_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Mass:
    """A planned mass: its place, its radius, its kind, and how far it pushes the brain aside."""

    centre: Point
    radius_mm: float
    kind: str
    push_mm: float


def displaced(head: Head, mass: Mass) -> Head:
    """The head with its brain pushed aside by a mass."""
    return push_brain(head, mass.centre, mass.push_mm, max(28.0, 1.4 * mass.radius_mm)) if mass.push_mm > 0.5 else head


def draw_mass(rng: np.random.Generator, scene: Scene) -> Mass:
    """Draw kind, place and size of a mass."""
    kind = str(
        rng.choice(
            ["glioma", "metastasis", "meningioma", "cystic", "angle", "sella"], p=[0.3, 0.25, 0.2, 0.1, 0.08, 0.07]
        )
    )
    radius = float(np.clip(np.exp(rng.normal(2.35, 0.5)), 3.5, 30))
    if kind == "meningioma":
        centre = scene.site(rng, lambda d, ras: (d["cavity"] > -8) & (ras[2] > -30))
        radius = max(6.0, min(radius, 24.0))
    elif kind == "angle":
        centre, radius = (float(rng.choice([-1, 1])) * 19.0, -34.0, -36.0), float(rng.uniform(5, 14))
    elif kind == "sella":
        centre, radius = (float(rng.normal(0, 2)), 2.0, -26.0), float(rng.uniform(6, 14))
    else:
        centre = scene.site(rng, lambda d, ras: (d["cavity"] < -8) & (d["brain"] > 0.5))
    push = 0.3 * radius * float(rng.uniform(0.2, 1.0)) if radius > 7 else 0.0
    return Mass(centre=centre, radius_mm=radius, kind=kind, push_mm=push)


def paint_mass(scene: Scene, rng: np.random.Generator, mass: Mass) -> None:
    """Paint a planned mass with its oedema, rim, core and cyst."""
    centre, radius = mass.centre, mass.radius_mm
    if mass.kind in {"glioma", "metastasis", "cystic"} and rng.random() < 0.75:
        reach = radius + float(rng.uniform(2, 6 + radius * 0.7))
        blob(
            scene,
            rng,
            centre,
            reach,
            mixture_of(float(rng.uniform(0.25, 0.55))),
            category="mass",
            gate="white",
            ragged=0.35,
            soft_mm=2.0,
        )
    if mass.kind in {"meningioma", "angle", "sella"}:
        solid = float(rng.uniform(0.05, 0.4))
        blob(
            scene,
            rng,
            centre,
            radius + 1.2,
            {"csf": 1.0},
            category="mass",
            gate="cavity",
            ragged=0.1,
            strength=float(rng.uniform(0, 1)),
        )
        mixture = {"grey": 1.0 - solid, "csf": solid}
        blob(scene, rng, centre, radius, mixture, category="mass", gate="cavity", ragged=0.1, soft_mm=0.5)
        return
    bright = float(rng.uniform(0.15, 0.65)) if mass.kind != "cystic" else float(rng.uniform(0.7, 1.0))
    blob(scene, rng, centre, radius, mixture_of(bright), category="mass", ragged=0.2)
    if mass.kind == "metastasis" or rng.random() < 0.4:
        dark = {"void": 0.4, "grey": 0.6}
        blob(
            scene, rng, centre, radius * 0.8, dark, category="mass", ragged=0.15, strength=float(rng.uniform(0.3, 1.0))
        )
        core = mixture_of(float(rng.uniform(0.4, 1.0)))
        blob(scene, rng, centre, radius * float(rng.uniform(0.35, 0.65)), core, category="mass", ragged=0.25)
    for _ in range(int(rng.integers(0, 4)) if mass.kind == "metastasis" else 0):
        other = scene.site(rng, lambda d, ras: (d["cavity"] < -6) & (d["brain"] > 0.5))
        blob(scene, rng, other, float(rng.uniform(2.5, 8)), mixture_of(float(rng.uniform(0.25, 0.6))), category="mass")
