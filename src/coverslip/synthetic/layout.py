"""Where tissue, glands, lesion and fibres lie: smooth fields on a 4 µm grid. Lengths and positions are in µm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from coverslip.base.random import stream
from coverslip.synthetic.fields import STEP_PX, distance, smooth_noise
from coverslip.synthetic.recipe import DRAWN_MPP, SlideRecipe

STEP_UM = STEP_PX * DRAWN_MPP
FAR = -1e4
# A lesion takes this part of the tissue.
LESION_FRACTION = (0.04, 0.14)


@dataclass(frozen=True)
class Layout:
    """Fields (nodes, nodes) of one slide; each distance is positive inside the thing.

    `tissue`, `epithelium` (gland with its lumen), `lumen`, `lesion`: signed distances in µm. `across`, `along`:
    coordinates over and along the fibres of the stroma in µm. `density` of the stroma, -1 to 1. `atypia`: 1 in the
    lesion's epithelium. `secretion`: 1 where a lumen is filled. `thickness`: 2 where the tissue is folded.
    """

    tissue: Float32[ndarray, "h w"]
    epithelium: Float32[ndarray, "h w"]
    lumen: Float32[ndarray, "h w"]
    lesion: Float32[ndarray, "h w"]
    across: Float32[ndarray, "h w"]
    along: Float32[ndarray, "h w"]
    density: Float32[ndarray, "h w"]
    atypia: Float32[ndarray, "h w"]
    secretion: Float32[ndarray, "h w"]
    thickness: Float32[ndarray, "h w"]
    glands: tuple[Gland, ...]

    @property
    def side_um(self) -> float:
        return (len(self.tissue) - 1) * STEP_UM


@dataclass(frozen=True)
class Gland:
    """A gland as a star-shaped contour: radius r(θ) = radius · (1 + Σ a_k cos(kθ + φ_k)), and its wall."""

    x: float
    y: float
    radius: float
    amplitudes: Float32[ndarray, k]
    phases: Float32[ndarray, k]
    wall: float

    def reach(self, angle: Float32[ndarray, ...]) -> Float32[ndarray, ...]:
        """Radius in µm at each angle."""
        waves = 1.0 + sum(a * np.cos((k + 2) * angle + p) for k, (a, p) in enumerate(zip(self.amplitudes, self.phases)))
        return (self.radius * waves).astype(np.float32)


def make_layout(recipe: SlideRecipe) -> Layout:
    """The layout of a slide, the same for the same recipe."""
    nodes = recipe.side_px // STEP_PX + 1
    rng = stream(recipe.seed, "layout", recipe.side_px)
    tissue = _tissue(rng, nodes)
    lesion = (
        _lesion(stream(recipe.seed, "lesion", recipe.side_px), tissue) if recipe.lesion else np.full_like(tissue, FAR)
    )
    across, along = _fibres(rng, nodes)
    epithelium, lumen, secretion, glands = _glands(rng, tissue, lesion)
    if recipe.lesion:
        tumour, holes = _tumour(stream(recipe.seed, "tumour", recipe.side_px), lesion)
        atypia = np.clip(np.minimum(tumour, lesion) / 4 + 0.5, 0, 1)
        lumen = np.where(tumour > epithelium, np.minimum(holes, tumour - 5), lumen)
        epithelium = np.maximum(epithelium, tumour)
        secretion = np.where(tumour > 0, 0.35 * secretion, secretion)
    else:
        atypia = np.zeros_like(tissue)
    # Fibres run around glands, not into them.
    across = across - 26 * (1 - np.exp(np.clip(epithelium, -400, 0) / 26))
    density = np.tanh(0.8 * smooth_noise(rng, nodes, 60) + 0.5 * smooth_noise(rng, nodes, 15))
    fold = _fold(stream(recipe.seed, "fold", recipe.side_px), tissue) if recipe.fold else np.ones_like(tissue)
    return Layout(
        tissue=tissue.astype(np.float32),
        epithelium=epithelium.astype(np.float32),
        lumen=lumen.astype(np.float32),
        lesion=lesion.astype(np.float32),
        across=across.astype(np.float32),
        along=along.astype(np.float32),
        density=density.astype(np.float32),
        atypia=atypia.astype(np.float32),
        secretion=secretion.astype(np.float32),
        thickness=fold,
        glands=glands,
    )


def _tissue(rng: np.random.Generator, nodes: int) -> Float32[ndarray, "h w"]:
    """One to three pieces with a ragged outline, clear of the slide's edge."""
    side = (nodes - 1) * STEP_UM
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32) / (nodes - 1)
    pieces = int(rng.integers(1, 4))
    turn = rng.uniform(0, np.pi)
    field = np.full((nodes, nodes), -9.0, np.float32)
    for piece in range(pieces):
        # Pieces lie side by side across the direction `turn`, as cores on a slide do.
        offset = (piece - (pieces - 1) / 2) * 0.62 / pieces
        cx = 0.5 - np.sin(turn) * offset + rng.uniform(-0.03, 0.03)
        cy = 0.5 + np.cos(turn) * offset + rng.uniform(-0.03, 0.03)
        tilt = turn + rng.uniform(-0.25, 0.25)
        length = rng.uniform(0.36, 0.43)
        width = rng.uniform(0.30, 0.37) if pieces == 1 else rng.uniform(0.235, 0.27) / pieces * 1.35
        u = ((x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt)) / length
        v = (-(x - cx) * np.sin(tilt) + (y - cy) * np.cos(tilt)) / width
        field = np.maximum(field, 1 - np.sqrt(u * u + v * v))
    wide = min(nodes / 5, 90)
    field += 0.13 * smooth_noise(rng, nodes, wide) + 0.05 * smooth_noise(rng, nodes, wide / 3)
    field += 0.02 * smooth_noise(rng, nodes, wide / 9)
    # Rips: thin gaps along the zero line of a noise, open only where a second noise allows it.
    rip = np.abs(smooth_noise(rng, nodes, 40)) + np.clip(1.1 - smooth_noise(rng, nodes, 70), 0, None)
    field = np.minimum(field, (rip - 0.10) * 1.5)
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    field = np.minimum(field, (border - 0.025) * 8)
    return np.clip(distance(field, STEP_UM), -side, side)


def _lesion(rng: np.random.Generator, tissue: Float32[ndarray, "h w"]) -> Float32[ndarray, "h w"]:
    """One or two foci that hold a drawn part of the tissue, well inside it."""
    nodes = len(tissue)
    inside = tissue > 0
    target = rng.uniform(*LESION_FRACTION)
    depth = np.minimum(tissue, 400)
    # In a large piece more than a quarter lies at the full depth: those places count too.
    candidates = np.argwhere(depth >= np.quantile(depth[inside], 0.75))
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32)
    near = np.full_like(tissue, np.inf)
    for size in [1.0] if rng.random() < 0.6 else [1.0, 1.5]:
        cy, cx = candidates[rng.integers(len(candidates))]
        stretch, tilt = rng.uniform(1.0, 1.7), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(tilt) + (y - cy) * np.sin(tilt)
        v = -(x - cx) * np.sin(tilt) + (y - cy) * np.cos(tilt)
        near = np.minimum(near, size * np.hypot(u / stretch, v * stretch))
    # The radius of a focus of that area sets the scale of its ragged outline.
    radius = np.sqrt(target * np.count_nonzero(inside) / np.pi)
    near += radius * (
        0.22 * smooth_noise(rng, nodes, max(4, radius / 1.5)) + 0.07 * smooth_noise(rng, nodes, max(3, radius / 5))
    )
    level = np.quantile(near[inside], target)
    field = distance((level - near).astype(np.float32), STEP_UM)
    return np.minimum(field, tissue)


def _fibres(rng: np.random.Generator, nodes: int) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32) * STEP_UM
    turn = rng.uniform(0, np.pi)
    across = (
        x * np.cos(turn) + y * np.sin(turn) + 170 * smooth_noise(rng, nodes, 110) + 20 * smooth_noise(rng, nodes, 22)
    )
    along = -x * np.sin(turn) + y * np.cos(turn) + 170 * smooth_noise(rng, nodes, 110)
    # Positive everywhere, since the fibre texture is looked up by whole-number coordinates.
    # Wrapping around glands takes at most 26 µm away.
    return across - across.min() + 64, along - along.min() + 64


def _glands(
    rng: np.random.Generator, tissue: Float32[ndarray, "h w"], lesion: Float32[ndarray, "h w"]
) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"], Float32[ndarray, "h w"], tuple[Gland, ...]]:
    """Benign glands in lobules: the distance into the gland, into its lumen, 1 where one is filled, the glands."""
    nodes = len(tissue)
    side = (nodes - 1) * STEP_UM
    wobble = smooth_noise(rng, nodes, 5)
    lobules = smooth_noise(rng, nodes, 75)
    epithelium = np.full_like(tissue, FAR)
    lumen = np.full_like(tissue, FAR)
    secretion = np.zeros_like(tissue)
    glands: list[Gland] = []
    tries = int(1500 * (side / 2048) ** 2)
    places = rng.uniform(0, side, (tries, 2))
    radii = rng.choice([0.55, 1.0, 1.45], tries, p=[0.35, 0.45, 0.2]) * rng.uniform(34, 56, tries)
    chances = rng.random((tries, 2))
    walls = rng.uniform(13, 19, tries)
    shapes = rng.standard_normal((tries, 5)) * np.array([0.13, 0.10, 0.07, 0.05, 0.035])
    phases = rng.uniform(0, 2 * np.pi, (tries, 5))
    # Large glands first, so that the small ones fill the gaps.
    for i in np.argsort(-radii, kind="stable"):
        x, y = places[i]
        row, column = round(y / STEP_UM), round(x / STEP_UM)
        room = 1.15 * radii[i]
        if tissue[row, column] < room * 0.9 or lesion[row, column] > -room * 0.8 or epithelium[row, column] > -room:
            continue
        if lobules[row, column] < chances[i, 0] * 2.2 - 1.5:
            continue
        gland = Gland(x, y, radii[i], shapes[i], phases[i], walls[i])
        glands.append(gland)
        reach = int(np.ceil(2.2 * radii[i] / STEP_UM)) + 2
        r0, r1, c0, c1 = max(0, row - reach), row + reach + 1, max(0, column - reach), column + reach + 1
        dy, dx = np.ogrid[r0 : min(r1, nodes), c0 : min(c1, nodes)]
        dy, dx = dy * STEP_UM - y, dx * STEP_UM - x
        depth = gland.reach(np.arctan2(dy, dx)) - np.hypot(dx, dy)
        here = np.s_[r0:r1, c0:c1]
        wins = depth > epithelium[here]
        epithelium[here] = np.where(wins, depth, epithelium[here])
        inner = depth - walls[i] - 3.5 * wobble[here]
        lumen[here] = np.where(wins, inner, lumen[here])
        if chances[i, 1] < 0.3:
            secretion[here] = np.where(wins & (depth > 0), 1.0, secretion[here])
    return epithelium, lumen, secretion, tuple(glands)


def _tumour(
    rng: np.random.Generator, lesion: Float32[ndarray, "h w"]
) -> tuple[Float32[ndarray, "h w"], Float32[ndarray, "h w"]]:
    """Fused nests with many small holes in one part of the lesion, crowded small glands in the other."""
    nodes = len(lesion)
    nests = distance(0.55 + smooth_noise(rng, nodes, 16) + 0.35 * smooth_noise(rng, nodes, 6), STEP_UM)
    small = np.full_like(lesion, FAR)
    holes = np.full_like(lesion, FAR)
    inside = np.argwhere(lesion > -20)
    low, high = inside.min(0) * STEP_UM, inside.max(0) * STEP_UM
    area = float(np.prod(high - low))
    for radius_range, density, target, gap in (((13, 26), 1 / 500, small, 3.0), ((4, 15), 1 / 350, holes, 9.0)):
        count = int(area * density)
        places = rng.uniform(low, high, (count, 2))
        radii = np.sort(rng.uniform(*radius_range, count))[::-1]
        stretches = rng.uniform(0.75, 1.35, count)
        tilts = rng.uniform(0, np.pi, count)
        for (y, x), radius, stretch, tilt in zip(places, radii, stretches, tilts):
            row, column = round(y / STEP_UM), round(x / STEP_UM)
            if lesion[row, column] < -15 or target[row, column] > -(radius + gap):
                continue
            reach = int(np.ceil(2 * radius / STEP_UM)) + 5
            r0, r1, c0, c1 = max(0, row - reach), row + reach + 1, max(0, column - reach), column + reach + 1
            dy, dx = np.ogrid[r0 : min(r1, nodes), c0 : min(c1, nodes)]
            dy, dx = dy * STEP_UM - y, dx * STEP_UM - x
            u = (dx * np.cos(tilt) + dy * np.sin(tilt)) / stretch
            v = (dy * np.cos(tilt) - dx * np.sin(tilt)) * stretch
            here = np.s_[r0 : min(r1, nodes), c0 : min(c1, nodes)]
            target[here] = np.maximum(target[here], radius - np.hypot(u, v))
    pattern = smooth_noise(rng, nodes, 50)
    wobble = smooth_noise(rng, nodes, 4)
    fused = pattern > -0.2
    tumour = np.where(fused, nests, small + 2.0 * wobble)
    # Poorly formed glands keep a slit of a lumen, nests their punched-out holes.
    cavities = np.where(fused, holes, small - 12.0 + 3.0 * wobble)
    return np.minimum(tumour, lesion), cavities + 1.0 * wobble


def _fold(rng: np.random.Generator, tissue: Float32[ndarray, "h w"]) -> Float32[ndarray, "h w"]:
    """1 everywhere but on one curved band, up to 60 to 100 µm wide, where the tissue lies on itself."""
    nodes = len(tissue)
    inside = np.argwhere(tissue > 0.35 * tissue.max())
    cy, cx = inside[rng.integers(len(inside))] * STEP_UM
    y, x = np.mgrid[:nodes, :nodes].astype(np.float32) * STEP_UM
    turn = rng.uniform(0, np.pi)
    over = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn) + 30 * smooth_noise(rng, nodes, 50)
    length = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
    half = rng.uniform(28, 48) * np.clip(1 - (length / rng.uniform(250, 400)) ** 2, 0, 1)
    return (1 + np.clip((half - np.abs(over)) / 6, 0, 1)).astype(np.float32)
