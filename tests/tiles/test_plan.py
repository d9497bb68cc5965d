"""Tiles: inside the slide, on the grid, in order, with enough tissue; a reason where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size, TileSpec
from coverslip.slide import Slide
from coverslip.synthetic import SlideRecipe, make_slide
from coverslip.tiles import grid, plan
from coverslip.tissue import TissueMask, segment


@dataclass(frozen=True)
class Plain:
    """What `plan` asks of a slide: so that properties can be tried on any size without a file."""

    size: Size
    mpp: float
    id: str = "plain"

    def require_mpp(self) -> float:
        return self.mpp


slides = st.builds(Plain, st.builds(Size, st.integers(1, 3000), st.integers(1, 3000)), st.floats(0.1, 4))
specs = st.builds(
    TileSpec,
    size_px=st.integers(1, 400),
    mpp=st.floats(0.1, 8),
    stride_px=st.none() | st.integers(1, 500),
    min_tissue=st.floats(0, 1),
)


def slow_grid(length: int, side: int, step: float) -> list[int]:
    """Every multiple of the step, one by one, rounded half up, as long as it fits."""
    found, i = [], 0
    while (at := int(np.floor(i * step + 0.5))) + side <= length:
        found.append(at)
        i += 1
    return found


@settings(max_examples=200, deadline=None)
@given(slide=slides, spec=specs)
def test_a_plan_covers_the_slide_once_in_order_and_never_leaves_it(slide: Plain, spec: TileSpec) -> None:
    assume(spec.mpp >= slide.mpp)
    scale = spec.mpp / slide.mpp
    step = max(1.0, (spec.stride_px or 1) * scale)
    assume(slide.size.width * slide.size.height / step**2 < 20_000)
    if max(1, round(spec.size_px * scale)) > min(slide.size):
        assert refusal(slide, None, spec).code == "no_tiles"
        return
    tiles = plan(slide, None, spec)  # type: ignore[arg-type]
    assert tiles.span == pytest.approx(spec.size_px * scale)
    assert all(tiles.box(i).inside(slide.size) for i in range(len(tiles)))
    xs, ys = (slow_grid(length, tiles.span_px, step) for length in slide.size)
    assert tiles.xy.tolist() == [[x, y] for y in ys for x in xs]
    assert len(np.unique(tiles.xy, axis=0)) == len(tiles)
    again = plan(slide, None, spec)  # type: ignore[arg-type]
    assert np.array_equal(tiles.xy, again.xy)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spec=st.builds(TileSpec, size_px=st.integers(20, 200), mpp=st.just(0.5), min_tissue=st.floats(0, 1)),
    max_tiles=st.none() | st.integers(1, 40),
)
def test_every_kept_tile_has_enough_tissue_and_no_other_has(seed: int, spec: TileSpec, max_tiles: int | None) -> None:
    slide = Plain(Size(800, 600), 0.5)
    coarse = np.random.default_rng(seed).random((8, 10)) < 0.4
    mask = TissueMask("plain", np.kron(coarse, np.ones((5, 5), bool)).astype(bool), 16, 0.5, "test")
    every = plan(slide, None, spec)  # type: ignore[arg-type]
    fraction = mask.fraction(every.xy, every.span)
    wanted = every.xy[(fraction >= spec.min_tissue) & (fraction > 0)]
    if not len(wanted):
        assert refusal(slide, mask, spec, max_tiles=max_tiles).code in {"no_tiles", "no_tissue"}
        return
    tiles = plan(slide, mask, spec, max_tiles=max_tiles)  # type: ignore[arg-type]
    assert (tiles.tissue >= spec.min_tissue).all()
    if max_tiles is None or max_tiles >= len(wanted):
        assert np.array_equal(tiles.xy, wanted)
    else:
        assert len(tiles) == max_tiles
        order = {tuple(p): i for i, p in enumerate(wanted.tolist())}
        places = [order[tuple(p)] for p in tiles.xy.tolist()]
        gaps = np.diff([*places, places[0] + len(wanted)])
        # Evenly: no gap differs from another by more than one place, but for the ends.
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 2


def test_spacing_does_not_drift() -> None:
    """At 0.4986 against 0.5 a tile is 224.6 px; rounding the step would be off by 157 px after 400 tiles."""
    slide = Plain(Size(100_000, 300), 0.4986)
    tiles = plan(slide, None, TileSpec(size_px=224, mpp=0.5))  # type: ignore[arg-type]
    assert tiles.xy[400, 0] == round(400 * 224 * 0.5 / 0.4986)


def test_excluded_layers_move_tiles_out() -> None:
    slide = Plain(Size(400, 200), 0.5)
    mask = np.ones((20, 40), bool)
    pen = np.zeros_like(mask)
    pen[:, :20] = True
    tissue = TissueMask("plain", mask, 10, 0.5, "test", {"pen": pen})
    spec = TileSpec(size_px=200, mpp=0.5)
    assert plan(slide, tissue, spec).xy.tolist() == [[200, 0]]  # type: ignore[arg-type]
    assert len(plan(slide, tissue, spec, exclude=())) == 2  # type: ignore[arg-type]


def refusal(slide: Plain, mask: TissueMask | None, spec: TileSpec, **options: object) -> SlideError:
    with pytest.raises(SlideError) as error:
        plan(slide, mask, spec, **options)  # type: ignore[arg-type]
    assert error.value.slide == slide.id
    assert error.value.fix
    return error.value


def test_a_slide_smaller_than_a_tile_says_both_sizes() -> None:
    error = refusal(Plain(Size(200, 900), 0.5), None, TileSpec(size_px=224, mpp=0.5))
    assert error.code == "no_tiles"
    assert "200 × 900" in str(error)
    assert "224" in str(error)


def test_a_tile_with_ink_is_left_out_however_much_tissue_it_has() -> None:
    mask, pen = np.ones((10, 20), bool), np.zeros((10, 20), bool)
    pen[:1, :5] = True  # a twentieth of the left tile
    tissue = TissueMask("plain", mask, 10.0, 0.5, "test", {"pen": pen})
    slide, spec = Plain(Size(200, 100), 0.5), TileSpec(size_px=100, mpp=0.5, min_tissue=0.5)
    assert plan(slide, tissue, spec).xy.tolist() == [[100, 0]]  # type: ignore[arg-type]
    assert len(plan(slide, tissue, spec, exclude=())) == 2  # type: ignore[arg-type]


def test_no_tissue_and_all_tissue_excluded_are_told_apart() -> None:
    slide = Plain(Size(900, 900), 0.5)
    empty = TissueMask("plain", np.zeros((9, 9), bool), 100, 0.5, "otsu")
    error = refusal(slide, empty, TileSpec())
    assert error.code == "no_tissue"
    assert "otsu" in str(error)
    full = np.ones((9, 9), bool)
    error = refusal(slide, TissueMask("plain", full, 100, 0.5, "otsu", {"blur": full}), TileSpec())
    assert error.code == "no_tissue"
    assert "blur" in str(error)


def test_too_little_tissue_everywhere_names_the_best_tile() -> None:
    mask = np.zeros((90, 90), bool)
    mask[40:45, 40:45] = True
    error = refusal(Plain(Size(900, 900), 0.5), TissueMask("plain", mask, 10, 0.5, "otsu"), TileSpec(min_tissue=0.9))
    assert error.code == "no_tiles"
    assert "the best has" in str(error)


@pytest.mark.parametrize(
    ("tile_mpp", "allowed"), [(0.25, False), (0.48, False), (0.495, True), (0.5, True), (1.0, True)]
)
def test_detail_is_not_invented(tile_mpp: float, allowed: bool) -> None:
    slide = Plain(Size(900, 900), 0.5)
    spec = TileSpec(size_px=100, mpp=tile_mpp)
    if allowed:
        assert len(plan(slide, None, spec))  # type: ignore[arg-type]
    else:
        error = refusal(slide, None, spec)
        assert error.code == "too_coarse"
        assert "0.5" in str(error)


def test_a_tile_count_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tiles"):
        plan(Plain(Size(900, 900), 0.5), None, TileSpec(), max_tiles=0)  # type: ignore[arg-type]


def test_a_grid_of_nothing_is_empty() -> None:
    assert grid(Size(10, 10), 11, 5).shape == (0, 2)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slide]:
    path = tmp_path_factory.mktemp("tiles") / "a.tif"
    make_slide(Path(path), SlideRecipe(seed=3, side_px=2048, pen="green"))
    with Slide.open(path) as opened:
        yield opened


def test_a_real_file_gives_tiles_that_can_all_be_read(slide: Slide) -> None:
    tiles = plan(slide, segment(slide), TileSpec(size_px=112, mpp=1.0))
    assert 20 < len(tiles) < 81
    seen = [i for batch in slide.tiles(tiles, batch=16) for i in batch.index]
    assert sorted(seen) == list(range(len(tiles)))


def test_a_slide_without_a_scale_is_refused(tmp_path: Path) -> None:
    make_slide(tmp_path / "a.tif", SlideRecipe(side_px=512, mpp=None))
    with Slide.open(tmp_path / "a.tif") as opened, pytest.raises(SlideError) as error:
        plan(opened, None, TileSpec())
    assert error.value.code == "mpp_missing"
