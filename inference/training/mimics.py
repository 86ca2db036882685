"""What looks like blood and is none, and what comes with trauma: drawn alike in heads with and without haemorrhage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from inference.training.anatomy import CHOROID_RAS_MM, PINEAL_RAS_MM, sigmoid
from inference.training.canvas import Array, Canvas
from inference.training.head_shapes import Point


def paint_mimics(canvas: Canvas, rng: np.random.Generator) -> list[str]:
    """Draw each mimic by its share in adults; returns the names of those present."""
    age = canvas.head.traits.age_years
    _plexus(canvas, rng.spawn(1)[0])
    shares: tuple[tuple[str, float, Callable[[Canvas, np.random.Generator], None]], ...] = (
        ("calcified_choroid", 0.25 + 0.006 * age, _choroid),
        ("calcified_pineal", 0.65, _pineal),
        ("calcified_falx", 0.09, _falx),
        ("calcified_basal_ganglia", 0.06 + 0.001 * age, _basal_ganglia),
        ("hyperdense_sinus", 0.09, _sinus),
        ("hyperdense_artery", 0.10, _artery),
        ("old_infarct", 0.10, _infarct),
        ("small_vessel_disease", 0.004 * age * canvas.head.traits.atrophy + 0.05, _leukoaraiosis),
        ("tumour", 0.07, _tumour),
        ("inner_table_bumps", 0.30, _bumps),
        ("contrast", 0.04, _contrast),
        ("hygroma_like_atrophy", 0.08, _wide_space),
        ("arachnoid_cyst", 0.04, _cyst),
    )
    present = []
    for name, share, paint in shares:
        if rng.random() < share:
            paint(canvas, rng)
            present.append(name)
    return present


def _blob(canvas: Canvas, rng: np.random.Generator, centre: Point, radius_mm: float, hu: float, ragged: float) -> None:
    window = canvas.window(centre, radius_mm * 2 + 4)
    x, y, z = canvas.ras(window)
    stretch = rng.uniform(0.7, 1.4, 3)
    radius = np.sqrt(
        ((x - centre[0]) / stretch[0]) ** 2 + ((y - centre[1]) / stretch[1]) ** 2 + ((z - centre[2]) / stretch[2]) ** 2
    )
    edge = radius + ragged * radius_mm * canvas.noise(rng, window, max(3.0, radius_mm)) - radius_mm
    inside = sigmoid(-canvas.head.distance_mm["cavity"][window] / 0.4)
    canvas.paint(window, np.asarray(sigmoid(-edge / 0.4) * inside, np.float32), hu)


def _near(rng: np.random.Generator, point: Point, spread_mm: float) -> Point:
    x, y, z = (float(c + rng.normal(0, spread_mm)) for c in point)
    return x, y, z


def _plexus(canvas: Canvas, rng: np.random.Generator) -> None:
    """The soft choroid plexus in both atria, denser than brain in nearly every adult, calcified or not."""
    length = rng.uniform((2.5, 4.0, 4.0), (5.5, 9.0, 9.0))
    hu, growth_mm = float(rng.uniform(36, 60)), canvas.head.traits.ventricle_growth_mm
    for point in CHOROID_RAS_MM:
        centre = _near(rng, point, 1.5)
        window = canvas.window(centre, 16.0)
        away = [
            (c - m) / (r * rng.uniform(0.85, 1.15)) for c, m, r in zip(canvas.ras(window), centre, length, strict=True)
        ]
        edge = np.sqrt(sum(a**2 for a in away)) - 1.0 + 0.3 * canvas.noise(rng, window, 4.0)
        inside = sigmoid((growth_mm + 0.5 - canvas.head.distance_mm["ventricle"][window]) / 0.4)
        speckled = np.float32(hu) + 8 * canvas.noise(rng, window, 2.5)
        canvas.paint(window, np.asarray(sigmoid(-edge / 0.12) * inside, np.float32), speckled)


def _choroid(canvas: Canvas, rng: np.random.Generator) -> None:
    for point in CHOROID_RAS_MM:
        if rng.random() < 0.85:
            radius, hu = float(rng.uniform(1.5, 5)), float(np.exp(rng.uniform(np.log(60), np.log(350))))
            _blob(canvas, rng, _near(rng, point, 2.0), radius, hu, 0.35)


def _pineal(canvas: Canvas, rng: np.random.Generator) -> None:
    _blob(canvas, rng, _near(rng, PINEAL_RAS_MM, 1.5), float(rng.uniform(1.2, 4.0)), float(rng.uniform(70, 400)), 0.3)


def _falx(canvas: Canvas, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        centre = (0.0, float(rng.uniform(-70, 50)), float(rng.uniform(35, 62)))
        window = canvas.window(centre, 20)
        _, y, z = canvas.ras(window)
        along = np.exp(-(((y - centre[1]) / rng.uniform(4, 10)) ** 2) - ((z - centre[2]) / rng.uniform(3, 8)) ** 2)
        sheet = sigmoid((float(rng.uniform(0.6, 1.6)) - canvas.head.distance_mm["falx"][window]) / 0.3)
        canvas.paint(window, np.asarray(sheet * np.clip(along * 1.5, 0, 1), np.float32), float(rng.uniform(90, 500)))


def _basal_ganglia(canvas: Canvas, rng: np.random.Generator) -> None:
    for side in (-1.0, 1.0):
        if rng.random() < 0.9:
            centre = _near(rng, (side * 20.0, 0.0, 0.0), 1.5)
            _blob(canvas, rng, centre, float(rng.uniform(1.5, 5.5)), float(rng.uniform(48, 140)), 0.5)


def _sinus(canvas: Canvas, rng: np.random.Generator) -> None:
    """Dense venous blood (high haematocrit): the sinuses a little wider and brighter than usual."""
    fraction = sigmoid((float(rng.uniform(-0.3, 1.5)) - canvas.head.distance_mm["venous"]) / 0.5)
    inside = sigmoid(-canvas.head.distance_mm["cavity"] / 0.4)
    canvas.paint((slice(None), slice(None), slice(None)), fraction * inside, float(rng.uniform(62, 80)))


def _artery(canvas: Canvas, rng: np.random.Generator) -> None:
    """Dense or calcified basilar, carotid or middle cerebral artery."""
    starts: tuple[Point, ...] = ((0, -14, -34), (-13, 2, -26), (13, 2, -26))
    x0, y0, z0 = starts[int(rng.integers(3))]
    for step in np.linspace(0, 1, 8):
        sign = np.sign(x0) if x0 else 0.0
        centre = (x0 + sign * 22 * step, y0 + 3 * step, z0 + (14 * step if not sign else 6 * step))
        _blob(canvas, rng, centre, float(rng.uniform(1.2, 1.9)), float(rng.uniform(55, 95)), 0.1)


def _infarct(canvas: Canvas, rng: np.random.Generator) -> None:
    side = float(rng.choice([-1, 1]))
    centre = (side * float(rng.uniform(14, 55)), float(rng.uniform(-85, 45)), float(rng.uniform(-35, 50)))
    radius = float(rng.uniform(4, 28))
    window = canvas.window(centre, radius * 1.8)
    x, y, z = canvas.ras(window)
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    shape = sigmoid((radius - away - 0.3 * radius * canvas.noise(rng, window, 10.0)) / 1.5)
    tissue = canvas.head.grey[window] + canvas.head.white[window]
    canvas.paint(window, np.asarray(shape * tissue * rng.uniform(0.5, 1), np.float32), float(rng.uniform(6, 24)))


def _leukoaraiosis(canvas: Canvas, rng: np.random.Generator) -> None:
    reach = float(rng.uniform(3, 12))
    near = np.exp(-np.maximum(canvas.head.distance_mm["ventricle"], 0) / reach)
    drop = float(rng.uniform(4, 12)) * near * canvas.head.white * (canvas.head.ras_mm[2] > -5)
    canvas.hu -= np.asarray(drop * np.clip(1 + 0.4 * canvas.head.fine_texture, 0, 2), np.float32)


def _tumour(canvas: Canvas, rng: np.random.Generator) -> None:
    """A meningioma-like dense mass at the dura, or a ring within oedema."""
    side = float(rng.choice([-1, 1]))
    centre = (side * float(rng.uniform(20, 58)), float(rng.uniform(-80, 50)), float(rng.uniform(-25, 55)))
    radius = float(rng.uniform(5, 20))
    window = canvas.window(centre, radius + 25)
    x, y, z = canvas.ras(window)
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    away = away + 0.15 * radius * canvas.noise(rng, window, 9.0)
    white = canvas.head.white[window]
    oedema = sigmoid((radius + float(rng.uniform(4, 16)) - away) / 2.0) * white
    canvas.paint(window, np.asarray(oedema * 0.8, np.float32), float(rng.uniform(16, 22)))
    inside = sigmoid(-canvas.head.distance_mm["cavity"][window] / 0.4)
    canvas.paint(window, np.asarray(sigmoid((radius - away) / 0.8) * inside, np.float32), float(rng.uniform(36, 52)))
    if rng.random() < 0.5:
        core = sigmoid((radius * float(rng.uniform(0.3, 0.8)) - away) / 0.8) * inside
        canvas.paint(window, np.asarray(core, np.float32), float(rng.uniform(14, 30)))


def _bumps(canvas: Canvas, rng: np.random.Generator) -> None:
    """Bone that bulges inwards: hyperostosis, ridges at the base, thickened inner table."""
    cavity = canvas.head.distance_mm["cavity"]
    front = sigmoid((canvas.head.ras_mm[1] - 20) / 8) if rng.random() < 0.4 else np.float32(1.0)
    bulge = np.maximum(canvas.head.texture - float(rng.uniform(0.5, 1.6)), 0) * float(rng.uniform(1.0, 3.5)) * front
    fraction = sigmoid((bulge + cavity - 0.3) / 0.35) * (bulge > 0.05) * (cavity < 1.0)
    everything = (slice(None), slice(None), slice(None))
    canvas.paint(everything, np.asarray(fraction, np.float32), float(rng.uniform(400, 1100)))


def _contrast(canvas: Canvas, rng: np.random.Generator) -> None:
    """Contrast medium from an earlier examination: vessels and dura bright, grey matter up a little."""
    head = canvas.head
    vessels = sigmoid((0.8 - head.distance_mm["venous"]) / 0.5) * sigmoid(-head.distance_mm["cavity"] / 0.4)
    everything = (slice(None), slice(None), slice(None))
    canvas.paint(everything, vessels, float(rng.uniform(90, 180)))
    sheet = np.minimum(head.distance_mm["falx"], head.distance_mm["tentorium"])
    canvas.hu += sigmoid((0.7 - sheet) / 0.4) * float(rng.uniform(10, 40)) * (head.distance_mm["cavity"] < 0)
    canvas.hu += head.grey * float(rng.uniform(2, 5))


def _wide_space(canvas: Canvas, rng: np.random.Generator) -> None:
    """Wide CSF space over one or both frontal lobes: never blood in this cohort, and not darker than CSF."""
    head = canvas.head
    sides = np.float32(1.0) if rng.random() < 0.6 else sigmoid(head.ras_mm[0] * float(rng.choice([-1, 1])) / 2)
    depth = float(rng.uniform(2, 7)) * sigmoid((head.ras_mm[1] - 10) / 12) * sigmoid((head.ras_mm[2] - 5) / 8) * sides
    fraction = sigmoid((depth + head.distance_mm["cavity"]) / 0.5) * sigmoid(-head.distance_mm["cavity"] / 0.4)
    fraction = fraction * (depth > 0.8)
    everything = (slice(None), slice(None), slice(None))
    canvas.paint(everything, np.asarray(fraction * (1 - head.csf), np.float32), float(rng.uniform(2, 10)))


def _cyst(canvas: Canvas, rng: np.random.Generator) -> None:
    centre = _near(rng, ((-45.0, 20.0, -25.0), (45.0, 20.0, -25.0), (0.0, -75.0, -45.0))[int(rng.integers(3))], 5.0)
    _blob(canvas, rng, centre, float(rng.uniform(6, 18)), float(rng.uniform(2, 10)), 0.2)


def paint_fracture(canvas: Canvas, rng: np.random.Generator, centre: Point) -> None:
    """A linear fracture through the vault near ``centre``: a dark plane in the bone, perhaps with a small step."""
    window = canvas.window(centre, 45)
    x, y, z = canvas.ras(window)
    normal = rng.normal(0, 1, 3)
    normal /= np.linalg.norm(normal)
    plane = (x - centre[0]) * normal[0] + (y - centre[1]) * normal[1] + (z - centre[2]) * normal[2]
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    gap = float(rng.uniform(0.4, 1.6))
    bone = canvas.hu[window] > 200
    crack = sigmoid((gap - np.abs(plane + 1.5 * canvas.noise(rng, window, 12.0))) / 0.3) * (away < rng.uniform(18, 42))
    canvas.paint(window, np.asarray(crack * bone, np.float32), float(rng.uniform(20, 60)))


def paint_scalp_swelling(canvas: Canvas, rng: np.random.Generator, centre: Point) -> None:
    """Scalp haematoma over ``centre``: outside the skull, therefore never intracranial blood."""
    window = canvas.window(centre, 55)
    x, y, z = canvas.ras(window)
    away = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / float(rng.uniform(16, 32)) ** 2
    bulge = float(rng.uniform(3, 14)) * np.exp(-away)
    skin = canvas.head.distance_mm["skin"][window]
    outer = canvas.head.distance_mm["cavity"][window] > canvas.head.traits.skull_mm * 1.15
    swelling = sigmoid((bulge - skin) / 0.5) * outer * (bulge > 1.0) * (canvas.hu[window] < 150)
    canvas.paint(window, np.asarray(swelling, np.float32), float(rng.uniform(35, 75)))


def paint_surgery(canvas: Canvas, rng: np.random.Generator, centre: Point) -> str:
    """Burr hole, or a craniotomy with its saw gap, or a missing flap; sometimes a little air below."""
    kind = str(rng.choice(["burr_hole", "craniotomy", "craniectomy"], p=[0.4, 0.4, 0.2]))
    radius = {"burr_hole": 7.0, "craniotomy": float(rng.uniform(20, 35)), "craniectomy": float(rng.uniform(20, 38))}[
        kind
    ]
    window = canvas.window(centre, radius + 12)
    x, y, z = canvas.ras(window)
    away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    edge = np.abs(away - radius) < 1.0 if kind == "craniotomy" else away < radius
    bone = (canvas.hu[window] > 150) & (canvas.head.distance_mm["cavity"][window] > -1)
    canvas.paint(window, np.asarray(edge * bone, np.float32), float(rng.uniform(20, 50)))
    if rng.random() < 0.5:
        cavity = canvas.head.distance_mm["cavity"][window]
        air = (away < radius * 0.8) & (cavity < 0) & (cavity > -float(rng.uniform(1.5, 6))) & (y > centre[1])
        canvas.paint(window, np.asarray(air, np.float32), -950.0)
    return kind


def site_on_vault(canvas: Canvas, rng: np.random.Generator) -> Point:
    """A random voxel of the skull above the base, in template coordinates."""
    cavity = canvas.head.distance_mm["cavity"][::2, ::3, ::3]
    ras: Array = canvas.head.ras_mm[:, ::2, ::3, ::3]
    found = np.flatnonzero((np.abs(cavity - 2) < 1.5) & (ras[2] > -20) & (ras[2] < 72))
    if not len(found):
        return 60.0, 0.0, 30.0
    x, y, z = ras.reshape(3, -1)[:, rng.choice(found)]
    return float(x), float(y), float(z)
