"""Normal variants on T2: bright, dark, asymmetric, and not abnormal (docs/labels.md). Every head gets some."""

from __future__ import annotations

import numpy as np

from inference.training.anatomy import Tissue, sigmoid
from inference.training.head_shapes import Point
from inference.training.mr_lesions import blob, periventricular
from inference.training.mr_scene import TISSUES, Scene, mixture_of


def paint_variants(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Paint a random set of normal variants; return their names."""
    drawn = []
    older = (scene.head.traits.age_years - 30) / 50
    for name, paint, chance in (
        ("white_matter_foci", _foci, 0.35 + 0.35 * older),
        ("periventricular_caps", _caps, 0.5 + 0.3 * older),
        ("perivascular_spaces", _perivascular_spaces, 0.8),
        ("sinus_mucosa", _sinus_mucosa, 0.5),
        ("small_cyst", _small_cyst, 0.22),
        ("cavum_septi", _cavum, 0.08),
        ("wide_cisterna_magna", _cisterna_magna, 0.08),
        ("choroid_cysts", _choroid, 0.2),
        ("iron", _iron, 0.3 + 0.4 * older),
        ("cortical_sulcus", _deep_sulcus, 0.3),
    ):
        if rng.random() < chance:
            paint(scene, rng)
            drawn.append(name)
    return drawn


def _foci(scene: Scene, rng: np.random.Generator) -> None:
    """Few punctate foci in the deep white matter (Fazekas 1)."""
    for _ in range(int(rng.integers(1, 8))):
        centre = scene.site(
            rng, lambda d, ras: (d["ventricle"] > 4) & (d["cavity"] < -9) & (ras[2] > -4) & (d["deep_grey"] > 3)
        )
        blob(
            scene,
            rng,
            centre,
            float(rng.uniform(0.8, 1.9)),
            mixture_of(float(rng.uniform(0.25, 0.6))),
            gate="white",
            ragged=0.0,
        )


def _caps(scene: Scene, rng: np.random.Generator) -> None:
    periventricular(scene, rng, reach_mm=float(rng.uniform(0.5, 2.4)), strength=float(rng.uniform(0.3, 0.9)))


def _perivascular_spaces(scene: Scene, rng: np.random.Generator) -> None:
    """Fluid-filled threads and dots: below the lentiform nuclei, in the centrum semiovale."""
    many = int(rng.integers(3, 40))
    for _ in range(many):
        if rng.random() < 0.45:
            centre: Point = (
                float(rng.choice([-1, 1])) * float(rng.uniform(16, 30)),
                float(rng.uniform(-8, 14)),
                float(rng.uniform(-12, 4)),
            )
            radius = float(rng.uniform(0.5, 1.5))
        else:
            centre = scene.site(rng, lambda d, ras: (ras[2] > 22) & (d["cavity"] < -12) & (d["brain"] > 0.8))
            radius = float(rng.uniform(0.4, 0.9))
        stretch = (float(rng.uniform(0.7, 1.6)), float(rng.uniform(0.7, 1.6)), float(rng.uniform(1, 3)))
        blob(scene, rng, centre, radius, {"csf": 1.0}, stretch=stretch, ragged=0.0, soft_mm=0.35)


def _sinus_mucosa(scene: Scene, rng: np.random.Generator) -> None:
    """Thickened mucosa and retained fluid in the paranasal sinuses and the mastoid."""
    everywhere = (slice(None), slice(None), slice(None))
    side = float(rng.choice([-1, 1, 0]))
    x = scene.head.ras_mm[0]
    own = np.ones_like(x) if side == 0 else np.asarray(x * side > 0, np.float32)
    shell = sigmoid((scene.head.distance_mm["air"] + float(rng.uniform(1, 7))) / 0.6)
    fraction = shell * own * (scene.head.labels == Tissue.AIR_SPACE)
    bright = float(rng.uniform(0.4, 1.0))
    scene.paint(everywhere, np.asarray(fraction, np.float32), {"csf": bright, "soft": 1 - bright})


def _small_cyst(scene: Scene, rng: np.random.Generator) -> None:
    """Arachnoid or pineal cyst below 1 cm, choroidal fissure cyst."""
    places: list[Point] = [(0, -30, 2), (-32, -18, -16), (32, -18, -16), (-30, 40, -34), (30, 42, -30), (-36, 10, -38)]
    place = places[int(rng.integers(len(places)))]
    blob(scene, rng, place, float(rng.uniform(2, 4.7)), {"csf": 1.0}, gate="cavity", ragged=0.05, soft_mm=0.5)


def _cavum(scene: Scene, rng: np.random.Generator) -> None:
    wide = float(rng.uniform(1.5, 3.5))
    blob(
        scene,
        rng,
        (0, 4, 14),
        8.0,
        {"csf": 1.0},
        stretch=(wide / 8.0, 1.4, 0.9),
        ragged=0.0,
        gate="cavity",
        soft_mm=0.5,
    )


def _cisterna_magna(scene: Scene, rng: np.random.Generator) -> None:
    blob(
        scene,
        rng,
        (float(rng.normal(0, 4)), -80, -50),
        float(rng.uniform(7, 14)),
        {"csf": 1.0},
        ragged=0.1,
        gate="cavity",
    )


def _choroid(scene: Scene, rng: np.random.Generator) -> None:
    """Choroid plexus in the atria, less bright than the fluid around it, uneven."""
    for side in (-1, 1):
        mixture = {"csf": float(rng.uniform(0.3, 0.7)), "grey": 0.3}
        blob(scene, rng, (side * 23.0, -42.0, 8.0), float(rng.uniform(2.5, 5)), mixture, gate="cavity", ragged=0.3)


def _iron(scene: Scene, rng: np.random.Generator) -> None:
    """Iron in the globus pallidus, dentate, red nucleus and substantia nigra darkens with age."""
    places = [(18, -4, 0, 5.0), (5, -20, -10, 3.0), (9, -17, -14, 3.0), (14, -58, -34, 4.0)]
    amount = float(rng.uniform(0.1, 0.5))
    for x, y, z, radius in places:
        for side in (-1, 1):
            blob(scene, rng, (side * float(x), y, z), radius, {"void": 1.0}, strength=amount, ragged=0.15, soft_mm=1.0)


def _deep_sulcus(scene: Scene, rng: np.random.Generator) -> None:
    """A sulcus wider on one side than on the other; heads are not symmetric."""
    centre = scene.site(rng, lambda d, ras: (d["cavity"] > -7) & (ras[2] > 0))
    window = scene.window(centre, 34.0)
    near = np.exp(-((scene.offset(window, centre) ** 2).sum(axis=0) / 18.0**2))
    fluid = scene.fractions[(TISSUES.index("csf"), *window)]
    wider = np.clip(fluid * (1.0 + 1.2 * near), 0, 1) - fluid
    rest = np.maximum(1.0 - fluid, 1e-3)
    scene.paint(window, np.asarray(np.clip(wider / rest, 0, 1), np.float32), {"csf": 1.0})
