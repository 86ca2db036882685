"""The five kinds of intracranial haemorrhage, drawn with the geometry that tells them apart on CT.

A plan is drawn first (kind, place, size, age of the blood), because a large bleed pushes the brain before anything is
painted. Sizes reach down to what is barely visible: thin extra-axial films, single-slice bleeds, isodense blood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.training.anatomy import Head, sigmoid
from inference.training.canvas import Canvas, Window, nearest_voxel
from inference.training.head_shapes import Point

CISTERNS: tuple[tuple[Point, float], ...] = (
    ((0, 2, -26), 16.0),  # suprasellar
    ((-40, 6, -8), 16.0),  # Sylvian fissures
    ((40, 6, -8), 16.0),
    ((0, -34, -4), 15.0),  # quadrigeminal and ambient
    ((0, -14, -40), 14.0),  # prepontine
    ((0, 48, 10), 16.0),  # interhemispheric, anterior
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bleed:
    """One planned haemorrhage: ``size_mm`` is the radius of a parenchymal bleed, the thickness of a collection, the
    reach of blood in the cisterns, and the depth of a level in the ventricles."""

    kind: str
    centre_ras_mm: Point
    size_mm: float
    extent_mm: float
    hu: float
    age: str
    push_mm: float


def draw_bleed(rng: np.random.Generator, head: Head, kind: str) -> Bleed:
    """Draw place, size, density and mass effect of one haemorrhage of ``kind``."""
    age, hu = _density(rng, kind)
    if kind == "intraparenchymal":
        radius = float(np.clip(np.exp(rng.normal(2.25, 0.52)), 2.8, 28))
        push = 0.28 * radius * float(rng.uniform(0, 1)) if radius > 10 else 0.0
        centre = _parenchymal_site(rng, head)
        return Bleed(kind=kind, centre_ras_mm=centre, size_mm=radius, extent_mm=radius, hu=hu, age=age, push_mm=push)
    if kind == "intraventricular":
        side = float(rng.choice([-1, 1]))
        depth = float(rng.choice([rng.uniform(4, 9), rng.uniform(9, 25), 60.0], p=[0.35, 0.35, 0.3]))
        centre = (side * 20.0, -40.0, 8.0)
        return Bleed(kind=kind, centre_ras_mm=centre, size_mm=depth, extent_mm=45, hu=hu, age=age, push_mm=0)
    if kind == "subarachnoid":
        if rng.random() < 0.45:
            centre, reach = CISTERNS[int(rng.integers(len(CISTERNS)))]
            reach *= float(rng.uniform(0.6, 1.8))
        else:
            centre, reach = _inner_table_site(rng, head, deep_mm=6.0), float(rng.uniform(13, 40))
        return Bleed(kind=kind, centre_ras_mm=centre, size_mm=reach, extent_mm=reach, hu=hu, age=age, push_mm=0)
    return _draw_collection(rng, head, kind, age, hu)


def _draw_collection(rng: np.random.Generator, head: Head, kind: str, age: str, hu: float) -> Bleed:
    thin = rng.random() < 0.38
    thickness = float(rng.uniform(1.8, 5.0) if thin else np.clip(np.exp(rng.normal(2.1, 0.4)), 5, 22))
    wide = kind == "subdural"
    extent = float(rng.uniform(35, 80) if wide else rng.uniform(13, 24) + 1.2 * thickness)
    push = thickness * float(rng.uniform(0.1, 0.5)) if thickness > 6 else 0.0
    centre = _inner_table_site(rng, head, deep_mm=0.0)
    if wide and rng.random() < 0.15:  # along the falx
        centre = (float(rng.choice([-1, 1])) * 2.0, float(rng.uniform(-80, 45)), float(rng.uniform(30, 60)))
    return Bleed(kind=kind, centre_ras_mm=centre, size_mm=thickness, extent_mm=extent, hu=hu, age=age, push_mm=push)


def _density(rng: np.random.Generator, kind: str) -> tuple[str, float]:
    """Age of the blood and its HU. Extra-axial blood is often older when it is scanned."""
    shares = {"subdural": (0.6, 0.15, 0.12, 0.13), "extradural": (0.84, 0.06, 0.02, 0.08)}
    p = shares.get(kind, (0.92, 0.08, 0.0, 0.0))
    age = str(rng.choice(["acute", "isodense", "hypodense", "mixed"], p=p))
    if age == "isodense":
        return age, float(rng.uniform(38, 49))
    if age == "hypodense":
        return age, float(rng.uniform(14, 28))
    return age, float(rng.uniform(56, 79))


def _parenchymal_site(rng: np.random.Generator, head: Head) -> Point:
    where = rng.random()
    side = float(rng.choice([-1, 1]))
    if where < 0.35:  # basal ganglia and thalamus
        return side * float(rng.uniform(10, 32)), float(rng.uniform(-24, 16)), float(rng.uniform(-2, 16))
    if where < 0.47:  # cerebellum, pons
        return side * float(rng.uniform(0, 34)), float(rng.uniform(-78, -28)), float(rng.uniform(-46, -24))
    if where < 0.72:  # contusions at the poles and along the base
        base = _inner_table_site(rng, head, deep_mm=8.0, box=((-60, 60), (10, 75), (-42, 12)))
        return base
    return _inner_table_site(rng, head, deep_mm=float(rng.uniform(8, 32)))


def _inner_table_site(
    rng: np.random.Generator,
    head: Head,
    *,
    deep_mm: float,
    box: tuple[tuple[float, float], ...] = ((-90, 90), (-110, 80), (-44, 74)),
) -> Point:
    """A random voxel about ``deep_mm`` inside the inner table, in template coordinates, within a RAS box."""
    cavity = head.distance_mm["cavity"][::2, ::3, ::3]
    ras = head.ras_mm[:, ::2, ::3, ::3]
    near = np.abs(cavity + deep_mm) < 2.0
    for axis, (low, high) in enumerate(box):
        near &= (ras[axis] > low) & (ras[axis] < high)
    found = np.flatnonzero(near)
    if not len(found):
        return 30.0, 0.0, 30.0
    x, y, z = ras.reshape(3, -1)[:, rng.choice(found)]
    return float(x), float(y), float(z)


def paint_bleed(canvas: Canvas, rng: np.random.Generator, bleed: Bleed) -> None:
    """Put one haemorrhage into the head."""
    painters = {
        "intraparenchymal": _parenchymal,
        "intraventricular": _ventricular,
        "subarachnoid": _subarachnoid,
        "subdural": _collection,
        "extradural": _collection,
    }
    painters[bleed.kind](canvas, rng, bleed)


def _offset(canvas: Canvas, window: Window, centre: Point) -> npt.NDArray[np.float32]:
    x, y, z = canvas.ras(window)
    return np.stack([x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])])


def _parenchymal(canvas: Canvas, rng: np.random.Generator, bleed: Bleed) -> None:
    """Irregular ellipsoid, sharper when fresh, with a rim of oedema; several small ones make a contusion."""
    count = int(rng.integers(2, 5)) if bleed.size_mm < 7 and rng.random() < 0.25 else 1
    for part in range(count):
        jitter = rng.normal(0, 7, 3) if part else np.zeros(3)
        centre = tuple(float(c + j) for c, j in zip(bleed.centre_ras_mm, jitter, strict=True))
        window = canvas.window((centre[0], centre[1], centre[2]), bleed.size_mm * 2 + 14)
        stretch = rng.uniform(0.75, 1.35, 3).astype(np.float32)
        away = _offset(canvas, window, (centre[0], centre[1], centre[2])) / stretch[:, None, None, None]
        radius = np.sqrt((away**2).sum(axis=0))
        ragged = canvas.noise(rng, window, max(5.0, bleed.size_mm * 0.9)) * 0.22 * bleed.size_mm
        tissue = np.clip(canvas.head.grey[window] + canvas.head.white[window] + 0.15, 0, 1)
        inside = sigmoid(-canvas.head.distance_mm["cavity"][window] / 0.5)
        edge = radius + ragged - bleed.size_mm
        oedema_mm = float(rng.uniform(0, 7)) * (0.3 + min(1.0, bleed.size_mm / 12))
        oedema = sigmoid((oedema_mm - edge) / 1.5) * tissue * float(rng.uniform(0.3, 0.9))
        canvas.paint(window, oedema * inside, float(rng.uniform(16, 24)))
        sharp = float(rng.uniform(0.3, 0.7) if bleed.age == "acute" else rng.uniform(0.8, 1.8))
        core = sigmoid(-edge / sharp) * inside
        value = bleed.hu + 3.0 * canvas.noise(rng, window, 5.0)
        if bleed.size_mm > 10 and rng.random() < 0.25:  # a level between plasma and clot
            value = value - 22.0 * (away[1] * stretch[1] > rng.normal(0, 4)).astype(np.float32)
        canvas.bleed(bleed.kind, window, core, value)


def _ventricular(canvas: Canvas, rng: np.random.Generator, bleed: Bleed) -> None:
    """Blood in the ventricles: it sinks to the back (layering), or fills them as a cast."""
    window = canvas.window((bleed.centre_ras_mm[0] * 0.5, -20.0, 6.0), 62.0)
    ventricle = sigmoid((canvas.head.traits.ventricle_growth_mm - canvas.head.distance_mm["ventricle"][window]) / 0.4)
    x, y, _ = canvas.ras(window)
    both = rng.random() < 0.6
    own = np.ones_like(x) if both else (x * np.sign(bleed.centre_ras_mm[0]) > -1).astype(np.float32)
    occupied = (ventricle * own) > 0.5
    if not occupied.any():
        return
    back = float(y[occupied].min())
    level = back + bleed.size_mm + 1.5 * canvas.noise(rng, window, 12.0)
    fraction = ventricle * own * sigmoid((level - y) / 0.7)
    canvas.bleed(bleed.kind, window, fraction, bleed.hu + 3.0 * canvas.noise(rng, window, 6.0))


def _subarachnoid(canvas: Canvas, rng: np.random.Generator, bleed: Bleed) -> None:
    """Blood replaces CSF in cisterns and sulci around its source, densest in the middle."""
    window = canvas.window(bleed.centre_ras_mm, bleed.size_mm * 1.9)
    radius = np.sqrt((_offset(canvas, window, bleed.centre_ras_mm) ** 2).sum(axis=0))
    inside_ventricle = sigmoid(
        (canvas.head.traits.ventricle_growth_mm + 1 - canvas.head.distance_mm["ventricle"][window]) / 0.4
    )
    fluid = canvas.head.csf[window] * (1.0 - inside_ventricle)
    near = np.maximum(np.exp(-((radius / bleed.size_mm) ** 2) * 1.1), 0.0)
    patchy = np.clip(0.85 + 0.4 * canvas.noise(rng, window, 9.0), 0.0, 1.0)
    swollen = np.clip(fluid * 1.25, 0.0, 1.0)  # blood under pressure fills the sulcus it lies in
    fraction = np.clip(swollen * np.clip(near * 1.6, 0, 1) * patchy, 0.0, 1.0)
    canvas.bleed(bleed.kind, window, fraction, bleed.hu)


def _collection(canvas: Canvas, rng: np.random.Generator, bleed: Bleed) -> None:
    """Blood between skull and brain: a lens outside the dura (EDH), a crescent along it or beside the falx (SDH)."""
    window = canvas.window(bleed.centre_ras_mm, bleed.extent_mm * 1.25)
    head = canvas.head
    cavity = head.distance_mm["cavity"][window]
    radius = np.sqrt((_offset(canvas, window, bleed.centre_ras_mm) ** 2).sum(axis=0))
    profile = np.clip(1.0 - (radius / bleed.extent_mm) ** 2, 0.0, 1.0)
    x, y, _ = canvas.ras(window)
    depth = -cavity
    if bleed.kind == "subdural":
        profile = np.sqrt(profile)
        side = np.float32(np.sign(bleed.centre_ras_mm[0]) or 1.0)
        if abs(bleed.centre_ras_mm[0]) < 5.0:  # interhemispheric
            depth = np.where(x * side > 0, head.distance_mm["falx"][window], 99.0).astype(np.float32)
        profile = profile * sigmoid((x * side + 1.0) / 0.8)  # never across the midline
        fossa = head.distance_mm["posterior_fossa"][window]
        above = head.distance_mm["posterior_fossa"][nearest_voxel(head, bleed.centre_ras_mm)] > 0
        profile = profile * sigmoid((fossa if above else -fossa) / 1.0)  # nor through the tentorium
    ragged = 1.0 + 0.12 * canvas.noise(rng, window, 14.0)
    thickness = bleed.size_mm * profile * ragged
    inside = sigmoid(-cavity / 0.3)
    fraction = sigmoid((thickness - depth) / 0.35) * inside * (profile > 0.03)
    value = np.full(cavity.shape, bleed.hu, np.float32) + 2.5 * canvas.noise(rng, window, 7.0)
    if bleed.age == "mixed":
        low = float(rng.uniform(18, 34))
        layered = (
            sigmoid((y - bleed.centre_ras_mm[1]) / 3.0)
            if rng.random() < 0.6
            else (sigmoid(canvas.noise(rng, window, 10.0) * 3.0))
        )
        value = value + (low - bleed.hu) * layered
    canvas.bleed(bleed.kind, window, fraction, value)
