from __future__ import annotations

import pytest

from coverslip.base.errors import EncoderError
from coverslip.base.geometry import TileSpec
from coverslip.encoders import Resize, describe


def test_a_rule_says_what_is_done():
    assert Resize.parse("bicubic 256, centre crop 224") == Resize("bicubic", 256, 224)
    assert Resize.parse("bilinear 224") == Resize("bilinear", 224, 224)
    assert Resize.parse("none") is None


def test_an_unknown_rule_is_our_mistake():
    with pytest.raises(AssertionError):
        Resize.parse("lanczos 224")


@pytest.mark.parametrize("mpp", [0.46, 0.5, 0.53])
def test_scanners_that_are_nearly_right_are_right(mpp):
    describe("uni").check_scale(TileSpec(224, mpp))


@pytest.mark.parametrize("mpp", [0.25, 0.44, 0.56, 1.0])
def test_another_scale_is_refused_with_both_numbers(mpp):
    with pytest.raises(EncoderError, match=rf"{mpp:g} µm/px.*'uni'.*0\.5 µm/px.*tiles\.mpp = 0\.5"):
        describe("uni").check_scale(TileSpec(224, mpp))


def test_a_range_of_scales_is_told():
    describe("virchow2").check_scale(TileSpec(224, 1.0))
    with pytest.raises(EncoderError, match=r"0\.25 to 2 µm/px.*tiles\.mpp = 2\b"):
        describe("virchow2").check_scale(TileSpec(224, 4.0))
