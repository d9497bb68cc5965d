"""Nuclei: a library of small pictures of each kind, where they lie, and how they are stamped onto the slide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from coverslip.base.random import stream
from coverslip.synthetic.fields import at_nodes
from coverslip.synthetic.layout import STEP_UM, Layout
from coverslip.synthetic.recipe import DRAWN_MPP

ANGLES = 12
VARIANTS = 8


@dataclass(frozen=True)
class Kind:
    """How nuclei of one kind look: half axes in µm, spread of size, irregularity of outline, darkness (haematoxylin
    in 1/100), coarseness of chromatin, how many nucleoli, how much darker the rim is."""

    name: str
    long: float
    short: float
    spread: float
    irregular: float
    dark: float
    coarse: float
    nucleoli: int
    rim: float


KINDS = (
    Kind("epithelial", 4.2, 3.0, 0.13, 0.05, 84, 0.24, 1, 0.45),
    Kind("fibroblast", 6.6, 1.25, 0.22, 0.10, 86, 0.18, 0, 0.0),
    Kind("lymphocyte", 2.8, 2.5, 0.08, 0.05, 128, 0.26, 0, 0.10),
    Kind("tumour", 5.0, 3.8, 0.22, 0.11, 88, 0.40, 2, 0.65),
)
EPITHELIAL, FIBROBLAST, LYMPHOCYTE, TUMOUR = range(4)


@dataclass(frozen=True)
class Nuclei:
    """All nuclei of a slide: centre in µm, kind, angle in radians, variant of the picture."""

    xy: Float32[ndarray, "n 2"]
    kind: Int64[ndarray, n]
    angle: Float32[ndarray, n]
    variant: Int64[ndarray, n]


@lru_cache(maxsize=1)
def library() -> tuple[tuple[tuple[UInt8[ndarray, "h w"], ...], ...], ...]:
    """Haematoxylin in 1/100 by kind, angle and variant. Drawn once; the same for every slide."""
    rng = stream(0, "nuclei")
    return tuple(
        tuple(tuple(_draw(rng, kind, np.pi * a / ANGLES) for _ in range(VARIANTS)) for a in range(ANGLES))
        for kind in KINDS
    )


def _draw(rng: np.random.Generator, kind: Kind, angle: float) -> UInt8[ndarray, "h w"]:
    size = np.exp(rng.normal(0, kind.spread))
    long, short = (np.array([kind.long, kind.short]) * size * np.exp(rng.normal(0, 0.08, 2))) / DRAWN_MPP
    half = int(np.ceil(1.3 * max(long, short))) + 3
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    theta = np.arctan2(v / short, u / long)
    outline = 1 + sum(
        rng.normal(0, kind.irregular / np.sqrt(k - 1)) * np.cos(k * theta + rng.uniform(0, 7)) for k in (2, 3, 4, 5)
    )
    depth = (outline - np.hypot(u / long, v / short)) * short  # pixels inside the outline
    inside = np.clip(depth / 1.4 + 0.5, 0, 1)
    chromatin = gaussian_filter(rng.standard_normal(x.shape), 1.1)
    chromatin /= chromatin.std()
    chromatin = np.clip(chromatin, -1.8, 1.8)
    dark = kind.dark * np.exp(rng.normal(0, 0.10))
    # A vesicular nucleus is paler inside than at its membrane.
    rim = 1 + kind.rim * (np.exp(-((depth / 1.6) ** 2)) - 0.45)
    value = dark * inside * (1 + kind.coarse * 0.6 * chromatin) * rim
    for _ in range(rng.integers(0, kind.nucleoli + 1) if kind.nucleoli else 0):
        cx, cy = rng.uniform(-0.4, 0.4, 2) * (long, short)
        value += inside * 60 * np.exp(-((u - cx) ** 2 + (v - cy) ** 2) / (2 * rng.uniform(1.0, 1.7) ** 2))
    value = gaussian_filter(value, 0.65)
    keep = np.argwhere(value > 2)
    (r0, c0), (r1, c1) = keep.min(0), keep.max(0) + 1
    # The crop stays symmetric, so that the centre of the picture is the centre of the nucleus.
    pad = min(r0, c0, len(x) - r1, len(x) - c1)
    return np.clip(value[pad : len(x) - pad, pad : len(x) - pad], 0, 190).astype(np.uint8)


def place(layout: Layout, seed: int) -> Nuclei:
    """The nuclei of a layout."""
    parts = [
        _gland_nuclei(stream(seed, "gland nuclei"), layout),
        _tumour_nuclei(stream(seed, "tumour nuclei"), layout),
        _stroma_nuclei(stream(seed, "stroma nuclei"), layout),
        _lymphocytes(stream(seed, "lymphocytes"), layout),
    ]
    xy = np.concatenate([p[0] for p in parts]).astype(np.float32)
    angle = np.concatenate([p[1] for p in parts]).astype(np.float32)
    kind = np.concatenate([np.full(len(p[0]), p[2], np.int64) for p in parts])
    return Nuclei(xy, kind, angle, stream(seed, "variants").integers(0, VARIANTS, len(xy)))


Placed = tuple[Float32[ndarray, "n 2"], Float32[ndarray, "n"], int]


def _gland_nuclei(rng: np.random.Generator, layout: Layout) -> Placed:
    """Nuclei at the basal side of each gland's wall, long axis across the wall; in some glands a second row."""
    xy, angles = [], []
    dense = rng.random(len(layout.glands))
    for gland, crowding in zip(layout.glands, dense):
        rows = (5.2,) if crowding < 0.55 else (5.0, 11.0)
        for depth in rows:
            spacing = 6.3 if crowding < 0.8 else 5.4
            theta = np.linspace(0, 2 * np.pi, 96, endpoint=False)
            reach = gland.reach(theta) - depth
            px, py = reach * np.cos(theta), reach * np.sin(theta)
            steps = np.hypot(np.diff(px, append=px[0]), np.diff(py, append=py[0]))
            length = np.concatenate([[0.0], np.cumsum(steps)])
            count = int(length[-1] / spacing)
            if count < 4:
                continue
            where = (np.arange(count) + rng.normal(0, 0.18, count)) * length[-1] / count
            angle = np.interp(where % length[-1], length, np.append(theta, 2 * np.pi))
            at = gland.reach(angle) - depth + rng.normal(0, 1.1, count)
            xy.append(np.stack([gland.x + at * np.cos(angle), gland.y + at * np.sin(angle)], 1))
            angles.append(angle + rng.normal(0, 0.25, count))
    if not xy:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.float32), EPITHELIAL
    points, turned = np.concatenate(xy).astype(np.float32), np.concatenate(angles).astype(np.float32)
    epithelium = at_nodes(layout.epithelium, points, STEP_UM)
    keep = (epithelium > 0.5) & (epithelium < 18) & (at_nodes(layout.tissue, points, STEP_UM) > 2)
    keep &= at_nodes(layout.lumen, points, STEP_UM) < -1
    keep &= at_nodes(layout.atypia, points, STEP_UM) < 0.5
    return points[keep], turned[keep], EPITHELIAL


def _tumour_nuclei(rng: np.random.Generator, layout: Layout) -> Placed:
    points = _jittered(rng, layout, 9.3, 0.22, np.argwhere(layout.atypia > 0.5))
    keep = (at_nodes(layout.atypia, points, STEP_UM) > 0.5) & (at_nodes(layout.lumen, points, STEP_UM) < -2.5)
    keep &= (at_nodes(layout.tissue, points, STEP_UM) > 2) & (rng.random(len(points)) < 0.90)
    points = points[keep]
    return points, rng.uniform(0, np.pi, len(points)).astype(np.float32), TUMOUR


def _stroma_nuclei(rng: np.random.Generator, layout: Layout) -> Placed:
    points = _jittered(rng, layout, 19.0, 0.42, np.argwhere(layout.tissue > 0))
    keep = (at_nodes(layout.tissue, points, STEP_UM) > 3) & (at_nodes(layout.epithelium, points, STEP_UM) < -3)
    keep &= rng.random(len(points)) < 0.72 + 0.25 * at_nodes(layout.density, points, STEP_UM)
    points = points[keep]
    # Along the fibres: across the slope of the coordinate that counts fibres.
    dy, dx = np.gradient(layout.across)
    angle = np.arctan2(at_nodes(dx, points, STEP_UM), -at_nodes(dy, points, STEP_UM))
    return points, (angle + rng.normal(0, 0.2, len(points))).astype(np.float32), FIBROBLAST


def _lymphocytes(rng: np.random.Generator, layout: Layout) -> Placed:
    """A few everywhere, and dense clusters whether there is a lesion or not: dark crowds of nuclei are no proof."""
    points = _jittered(rng, layout, 6.4, 0.36, np.argwhere(layout.tissue > 0))
    inside = np.argwhere((layout.tissue > 60) & (layout.epithelium < -5))
    chance = np.full(len(points), 0.006, np.float32)
    clusters = rng.poisson(2.2 * (layout.side_um / 2048) ** 2)
    for _ in range(clusters if len(inside) else 0):
        centre = inside[rng.integers(len(inside))][::-1] * STEP_UM
        radius = rng.uniform(28, 85)
        away = np.hypot(*(points - centre).T) / radius
        chance = np.maximum(chance, 0.92 * np.exp(-(away**4)))
    keep = rng.random(len(points)) < chance
    points = points[keep]
    keep = (at_nodes(layout.tissue, points, STEP_UM) > 3) & (at_nodes(layout.epithelium, points, STEP_UM) < -2)
    points = points[keep]
    return points, rng.uniform(0, np.pi, len(points)).astype(np.float32), LYMPHOCYTE


def _jittered(
    rng: np.random.Generator, layout: Layout, spacing: float, jitter: float, where: Int64[ndarray, "n 2"]
) -> Float32[ndarray, "n 2"]:
    """A staggered grid over the box around the nodes `where`, each point moved by `jitter` spacings (sd)."""
    if not len(where):
        return np.zeros((0, 2), np.float32)
    (y0, x0), (y1, x1) = where.min(0) * STEP_UM, (where.max(0) + 1) * STEP_UM
    y, x = np.mgrid[y0 : y1 : spacing * 0.87, x0:x1:spacing]
    x[1::2] += spacing / 2
    points = np.stack([x.ravel(), y.ravel()], 1)
    points += rng.normal(0, jitter * spacing, points.shape)
    return points.astype(np.float32)


def stamp(nuclei: Nuclei, side_px: int) -> UInt8[ndarray, "side side"]:
    """Haematoxylin of all nuclei in 1/100 on the whole slide; where two overlap the darker one shows."""
    plane = np.zeros((side_px, side_px), np.uint8)
    pictures = library()
    angle = np.rint(nuclei.angle / (np.pi / ANGLES)).astype(np.int64) % ANGLES
    columns = np.rint(nuclei.xy / DRAWN_MPP).astype(np.int64).T.tolist()
    maximum = np.maximum
    for x, y, kind, turn, variant in zip(*columns, nuclei.kind.tolist(), angle.tolist(), nuclei.variant.tolist()):
        picture = pictures[kind][turn][variant]
        half = picture.shape[0] >> 1
        if x < half or y < half or x + half >= side_px or y + half >= side_px:
            continue
        here = plane[y - half : y + half + 1, x - half : x + half + 1]
        maximum(here, picture, out=here)
    return plane
