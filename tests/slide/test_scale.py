from __future__ import annotations

import pytest

from coverslip.base.errors import SlideError
from coverslip.base.geometry import Size
from coverslip.slide.reader import RESOLUTION_TAG, SlideInfo
from coverslip.slide.scale import checked_mpp, scale_of

LEVELS = (Size(4000, 4000), Size(1000, 1000))


def told(
    mpp: tuple[float, float] | None = None,
    *,
    given: float | None = None,
    objective: float | None = None,
    level_mpp: tuple[float | None, ...] = (),
    source: str = "the file's metadata",
) -> tuple[float | None, list[str]]:
    info = SlideInfo(LEVELS, "test", mpp=mpp, mpp_source=source, level_mpp=level_mpp, objective=objective)
    scale = scale_of(info, (1.0, 4.0), given)
    return scale.mpp, [f.code for f in scale.findings]


@pytest.mark.parametrize("value", [0, 0.0, -0.5, float("nan"), float("inf"), 50, 0.001, True, "0.5", None])
def test_a_value_that_no_microscope_has_is_refused_with_the_range(value: object) -> None:
    with pytest.raises(SlideError, match=r"0\.05 to 20") as caught:
        checked_mpp(value, slide="a")  # type: ignore[arg-type]
    assert caught.value.slide == "a" and caught.value.code == "mpp_implausible"


def test_the_files_own_value_is_used() -> None:
    assert told((0.25, 0.25)) == (0.25, [])
    assert told((0.25, 0.251)) == (0.2505, [])


def test_a_missing_value_is_told_and_a_given_one_fills_it() -> None:
    assert told() == (None, ["mpp_missing"])
    assert told(given=0.5) == (0.5, [])


def test_a_given_value_wins_over_the_file_and_says_so() -> None:
    assert told((0.25, 0.25), given=0.5) == (0.5, ["mpp_conflict"])
    assert told((0.25, 0.25), given=0.2515) == (0.2515, [])


def test_pixels_that_are_not_square_have_no_single_scale() -> None:
    assert told((0.25, 0.5)) == (None, ["mpp_conflict"])
    assert told((0.25, 0.5), given=0.25) == (0.25, ["mpp_conflict"])


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 600])
def test_dots_per_inch_of_a_printer_are_no_scale(dpi: int) -> None:
    info = SlideInfo(LEVELS, "test", mpp=(25400 / dpi,) * 2, mpp_source=RESOLUTION_TAG)
    scale = scale_of(info, (1.0, 4.0), None)
    assert scale.mpp is None
    assert [f.code for f in scale.findings] == ["mpp_implausible", "mpp_missing"]
    assert f"{dpi} dots per inch" in scale.findings[0].message


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), 352.8, 0.0001])
def test_a_value_in_the_file_that_no_microscope_has_is_not_used(value: float) -> None:
    mpp, codes = told((value, value))
    assert mpp is None and codes == ["mpp_implausible", "mpp_missing"]


@pytest.mark.parametrize(
    ("mpp", "objective"), [(0.5, 20), (0.25, 40), (0.2282, 40), (0.325, 20), (1.0, 10), (0.12, 60)]
)
def test_a_scale_that_fits_its_objective_is_quiet(mpp: float, objective: float) -> None:
    assert told((mpp, mpp), objective=objective) == (mpp, [])


@pytest.mark.parametrize(("mpp", "objective"), [(0.5, 40), (0.25, 20), (0.25, 10), (2.0, 20)])
def test_a_scale_that_contradicts_its_objective_is_told(mpp: float, objective: float) -> None:
    assert told((mpp, mpp), objective=objective) == (mpp, ["mpp_conflict"])


def test_a_level_that_states_another_scale_than_its_size_is_told() -> None:
    assert told((0.25, 0.25), level_mpp=(0.25, 1.0)) == (0.25, [])
    assert told((0.25, 0.25), level_mpp=(0.25, None)) == (0.25, [])
    assert told((0.25, 0.25), level_mpp=(0.25, 0.5)) == (0.25, ["mpp_conflict"])
