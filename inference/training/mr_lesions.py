"""Abnormal findings on T2, by the categories of Wood et al. (docs/labels.md), from barely visible to gross.

Masses are in ``mr_mass.py``.
"""

from __future__ import annotations

import itertools

import numpy as np

from inference.training.anatomy import sigmoid
from inference.training.head_shapes import Point, capsules
from inference.training.mr_scene import Scene, mixture_of

SHARES = {
    "acute_stroke": 0.17,
    "mass": 0.18,
    "atrophy": 0.12,
    "vascular": 0.12,
    "small_vessel_disease": 0.16,
    "white_matter_inflammation": 0.13,
    "encephalomalacia": 0.12,
}


def draw_categories(rng: np.random.Generator) -> tuple[str, ...]:
    """Draw one to three categories, one being usual."""
    count = int(rng.choice([1, 2, 3], p=[0.72, 0.23, 0.05]))
    return tuple(str(c) for c in rng.choice(list(SHARES), size=count, replace=False, p=list(SHARES.values())))


def blob(
    scene: Scene,
    rng: np.random.Generator,
    centre: Point,
    radius_mm: float,
    mixture: dict[str, float],
    *,
    category: str = "",
    stretch: tuple[float, float, float] | None = None,
    ragged: float = 0.2,
    soft_mm: float = 0.7,
    gate: str = "brain",
    strength: float = 1.0,
) -> None:
    """Paint one irregular ellipsoid; ``gate`` keeps it to ``brain``, to ``white`` matter, or to the ``cavity``."""
    window = scene.window(centre, radius_mm * 2.0 + 5.0)
    shape = np.array(stretch if stretch else rng.uniform(0.75, 1.3, 3), np.float32)
    radius = np.sqrt(((scene.offset(window, centre) / shape[:, None, None, None]) ** 2).sum(axis=0))
    edge = radius - radius_mm
    if ragged and radius_mm > 2.0:
        edge = edge + scene.noise(rng, window, max(4.0, radius_mm)) * np.float32(ragged * radius_mm)
    fraction = strength * sigmoid(-edge / soft_mm) * sigmoid(-scene.head.distance_mm["cavity"][window] / 0.4)
    if gate == "brain":
        fraction = fraction * np.clip(scene.fractions[(slice(0, 3), *window)].sum(axis=0), 0, 1)
    elif gate == "white":
        fraction = fraction * np.clip(scene.fractions[(0, *window)] + 0.3 * scene.fractions[(1, *window)], 0, 1)
    scene.paint(window, fraction, mixture, category)


def acute_stroke(scene: Scene, rng: np.random.Generator) -> None:
    """Swollen, bright tissue: cortical and wedge-like, or a lacune-sized one in nuclei, pons, white matter."""
    where = rng.random()
    if where < 0.6:
        centre = scene.site(rng, lambda d, ras: (d["cavity"] > -24) & (d["cavity"] < -6) & (d["brain"] > 0.4))
        radius = float(np.clip(np.exp(rng.normal(2.55, 0.45)), 5, 36))
    elif where < 0.85:
        centre = scene.site(rng, lambda d, ras: (d["deep_grey"] < 5) & (d["brain"] > 0.6))
        radius = float(rng.uniform(3.5, 13))
    else:
        centre = scene.site(rng, lambda d, ras: (d["posterior_fossa"] < -3) & (d["brain"] > 0.6))
        radius = float(rng.uniform(3.5, 18))
    stretch = tuple(float(v) for v in rng.uniform(0.6, 1.5, 3))
    window = scene.window(centre, radius * 2 + 5)
    near = np.exp(-((scene.offset(window, centre) ** 2).sum(axis=0) / (radius * 1.1) ** 2))
    swelling = np.clip(scene.fractions[(3, *window)] - 0.0, 0, 1) * near * float(rng.uniform(0, 0.8))
    swelling = swelling * (scene.head.distance_mm["ventricle"][window] > 3)
    scene.paint(window, np.clip(swelling, 0, 0.9), {"grey": 1.0})
    blob(
        scene, rng, centre, radius, mixture_of(float(rng.uniform(0.22, 0.55))), category="acute_stroke",
        stretch=(stretch[0], stretch[1], stretch[2]), ragged=0.35, soft_mm=float(rng.uniform(0.7, 2.0)),
    )  # fmt: skip


def vascular(scene: Scene, rng: np.random.Generator) -> None:
    """Aneurysm, arteriovenous malformation, cavernoma, or a sinus that lost its flow void."""
    kind = rng.choice(["aneurysm", "avm", "cavernoma", "thrombosis"], p=[0.32, 0.24, 0.26, 0.18])
    scene.facts["vascular"] = str(kind)
    if kind == "aneurysm":
        places: list[Point] = [(-36, 2, -15), (36, 2, -15), (0, 22, -10), (0, -13, -18), (-14, 5, -14), (14, 5, -14)]
        x, y, z = places[int(rng.integers(len(places)))]
        radius = float(rng.uniform(3.2, 11))
        blob(
            scene,
            rng,
            (x, y, z + radius * 0.6),
            radius,
            {"void": 1.0},
            category="vascular",
            gate="cavity",
            ragged=0.08,
            soft_mm=0.4,
        )
    elif kind == "avm":
        _tangle(scene, rng)
    elif kind == "cavernoma":
        centre = scene.site(rng, lambda d, ras: (d["cavity"] < -6) & (d["brain"] > 0.6))
        radius = float(rng.uniform(3, 10))
        blob(scene, rng, centre, radius, {"void": 0.9, "grey": 0.1}, category="vascular", ragged=0.15, soft_mm=0.5)
        mixture = {"csf": 0.5, "grey": 0.2, "void": 0.3}
        blob(scene, rng, centre, radius * 0.65, mixture, category="vascular", ragged=0.5, soft_mm=0.5)
    else:
        _thrombosis(scene, rng)


def _tangle(scene: Scene, rng: np.random.Generator) -> None:
    """Serpiginous flow voids in a nidus, with a draining vein."""
    centre = scene.site(rng, lambda d, ras: (d["cavity"] > -30) & (d["cavity"] < -8) & (d["brain"] > 0.4))
    radius = float(rng.uniform(6, 18))
    window = scene.window(centre, radius * 2)
    x, y, z = scene.offset(window, centre)
    points = np.cumsum(rng.normal(0, radius * 0.45, (14, 3)), axis=0)
    points = (points - points.mean(axis=0)) * radius / (np.abs(points - points.mean(axis=0)).max() + 1e-6)
    path = [(float(p[0]), float(p[1]), float(p[2])) for p in points]
    tubes = [(a, b, float(rng.uniform(1.3, 2.8))) for a, b in itertools.pairwise(path)]
    inside = sigmoid(-scene.head.distance_mm["cavity"][window] / 0.4)
    scene.paint(window, inside * sigmoid(-capsules(x, y, z, tubes) / 0.4), {"void": 1.0}, "vascular")


def _thrombosis(scene: Scene, rng: np.random.Generator) -> None:
    """A stretch of venous sinus filled with bright clot, and venous oedema beside it now and then."""
    z_low = float(rng.uniform(-40, 30))
    everywhere = (slice(None), slice(None), slice(None))
    x, _, z = scene.head.ras_mm
    side = float(rng.choice([-1, 1]))
    part = (
        sigmoid(np.asarray(z - z_low, np.float32) / 2)
        if rng.random() < 0.5
        else sigmoid(np.asarray(side * x - 6, np.float32) / 2)
    )
    fraction = (
        part * sigmoid(-scene.head.distance_mm["venous"] / 0.5) * sigmoid(-scene.head.distance_mm["cavity"] / 0.4)
    )
    scene.paint(everywhere, fraction, {"grey": 0.5, "csf": float(rng.uniform(0.2, 0.5))}, "vascular")
    if rng.random() < 0.5:
        near = scene.site(rng, lambda d, ras: (d["venous"] < 14) & (d["brain"] > 0.5))
        blob(
            scene,
            rng,
            near,
            float(rng.uniform(6, 20)),
            mixture_of(float(rng.uniform(0.2, 0.5))),
            category="vascular",
            ragged=0.4,
        )


def small_vessel_disease(scene: Scene, rng: np.random.Generator) -> None:
    """Fazekas 2-3: bands along the ventricles that grow together, many foci in the deep white matter, lacunes."""
    grade = float(rng.uniform(0, 1))
    periventricular(
        scene, rng, reach_mm=3.5 + 8.0 * grade, strength=float(rng.uniform(0.5, 1.0)), category="small_vessel_disease"
    )
    for _ in range(int(rng.integers(14, 30) + 35 * grade)):
        centre = scene.site(rng, lambda d, ras: (d["ventricle"] < 26) & (d["cavity"] < -9) & (ras[2] > -8))
        radius = float(np.clip(np.exp(rng.normal(0.75 + 0.4 * grade, 0.4)), 1.2, 7))
        blob(
            scene,
            rng,
            centre,
            radius,
            mixture_of(float(rng.uniform(0.25, 0.5))),
            category="small_vessel_disease",
            gate="white",
            soft_mm=0.9,
        )
    for _ in range(int(rng.integers(0, 4))):
        centre = scene.site(rng, lambda d, ras: (d["deep_grey"] < 4) & (d["brain"] > 0.6))
        blob(
            scene,
            rng,
            centre,
            float(rng.uniform(1.5, 3.5)),
            mixture_of(0.9),
            category="small_vessel_disease",
            ragged=0.0,
        )


def periventricular(
    scene: Scene, rng: np.random.Generator, *, reach_mm: float, strength: float, category: str = ""
) -> None:
    """Bright caps and bands along the lateral ventricles, uneven, as wide as ``reach_mm``."""
    everywhere = (slice(None), slice(None), slice(None))
    head = scene.head
    fine = scene.noise(rng, everywhere, 7.0)
    uneven = 0.3 * head.texture + 0.25 * fine
    depth = head.distance_mm["ventricle"] - np.float32(head.traits.ventricle_growth_mm)
    band = sigmoid((np.float32(reach_mm) * (1.0 + uneven) - depth) / 1.2) * (depth > -1)
    upper = sigmoid((head.ras_mm[2] + 8.0) / 2.0)
    fraction = strength * band * upper * np.clip(scene.fractions[0], 0, 1)
    scene.paint(everywhere, np.asarray(fraction, np.float32), mixture_of(float(rng.uniform(0.2, 0.45))), category)


def white_matter_inflammation(scene: Scene, rng: np.random.Generator) -> None:
    """Ovoid plaques at right angles to the ventricles, juxtacortical and infratentorial ones."""
    for _ in range(int(np.clip(rng.poisson(9) + 3, 3, 30))):
        where = rng.random()
        radius = float(np.clip(np.exp(rng.normal(1.0, 0.4)), 1.4, 9))
        stretch = (float(rng.uniform(1.1, 1.7)), float(rng.uniform(0.6, 0.9)), float(rng.uniform(0.7, 1.2)))
        if where < 0.55:
            centre = scene.site(
                rng, lambda d, ras: (d["ventricle"] > 1.5) & (d["ventricle"] < 9) & (ras[2] > -6) & (np.abs(ras[0]) > 7)
            )
        elif where < 0.85:
            centre = scene.site(rng, lambda d, ras: (d["cavity"] > -18) & (d["cavity"] < -8) & (ras[2] > -5))
        else:
            centre = scene.site(rng, lambda d, ras: (d["posterior_fossa"] < -4) & (d["brain"] > 0.7))
        mixture = mixture_of(float(rng.uniform(0.3, 0.65)))
        blob(
            scene,
            rng,
            centre,
            radius,
            mixture,
            category="white_matter_inflammation",
            stretch=stretch,
            soft_mm=0.6,
            gate="white",
        )


def encephalomalacia(scene: Scene, rng: np.random.Generator) -> None:
    """A fluid-filled defect with a gliotic rim: old infarct, contusion, resection, or a large old lacune."""
    if rng.random() < 0.3:
        centre = scene.site(rng, lambda d, ras: (d["deep_grey"] < 6) & (d["brain"] > 0.6))
        radius = float(rng.uniform(3.0, 9))
    else:
        centre = scene.site(rng, lambda d, ras: (d["cavity"] > -22) & (d["cavity"] < -3) & (d["brain"] > 0.3))
        radius = float(np.clip(np.exp(rng.normal(2.45, 0.45)), 4.5, 34))
    rim = radius + float(rng.uniform(1.5, 5.0))
    blob(
        scene,
        rng,
        centre,
        rim,
        mixture_of(float(rng.uniform(0.2, 0.5))),
        category="encephalomalacia",
        ragged=0.35,
        soft_mm=1.5,
    )
    fluid = {"csf": float(rng.uniform(0.8, 1.0)), "white": 0.05}
    blob(scene, rng, centre, radius, fluid, category="encephalomalacia", ragged=0.35, gate="cavity")


PAINTERS = {
    "acute_stroke": acute_stroke,
    "vascular": vascular,
    "small_vessel_disease": small_vessel_disease,
    "white_matter_inflammation": white_matter_inflammation,
    "encephalomalacia": encephalomalacia,
}
