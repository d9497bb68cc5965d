"""The picture for reports shows tissue as it is, layers tinted, glass faded."""

from __future__ import annotations

import numpy as np
import pytest

from coverslip.tissue import TissueMask, overlay


@pytest.mark.parametrize("size", [(40, 40), (97, 131), (10, 10)])
def test_tissue_keeps_its_colour_layers_are_tinted_and_the_rest_fades(size: tuple[int, int]) -> None:
    mask = np.zeros((20, 20), bool)
    mask[4:16, 4:16] = True
    blur = np.zeros_like(mask)
    blur[10:16, 4:16] = True
    rgb = np.full((*size, 3), 120, np.uint8)
    picture = overlay(rgb, TissueMask("a", mask, 16, 0.5, "test", {"blur": blur}))
    assert picture.shape == rgb.shape
    assert picture.dtype == np.uint8
    h, w = size
    assert picture[0, 0].tolist() == [194, 194, 194]
    assert picture[int(h * 0.35), w // 2].tolist() == [120, 120, 120]
    tinted = picture[int(h * 0.65), w // 2].astype(int)
    assert tinted[0] > 150 > tinted[2]
    assert (rgb == 120).all()
