"""Layouts: a lesion finds its place in every piece of tissue."""

from __future__ import annotations

import pytest

from coverslip.synthetic.layout import make_layout
from coverslip.synthetic.recipe import SlideRecipe


# The first is of one large piece, more than a quarter of which lies as deep as depth is measured.
@pytest.mark.parametrize("seed", [7001378134447650420, 1, 2])
def test_a_lesion_lies_inside_the_tissue_and_has_its_share(seed: int) -> None:
    layout = make_layout(SlideRecipe(seed=seed, side_px=4096, lesion=True))
    tissue, lesion = layout.tissue > 0, layout.lesion > 0
    assert not (lesion & ~tissue).any()
    assert 0.02 < lesion.sum() / tissue.sum() < 0.16
