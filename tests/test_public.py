from __future__ import annotations

import inspect

import coverslip
import coverslip.explainers
from coverslip.recipes.heatmap import explain


def test_every_public_name_is_there() -> None:
    for name in coverslip.__all__:
        assert getattr(coverslip, name) is not None, name


def test_a_floor_of_the_same_name_does_not_hide_a_function() -> None:
    # A second look used to find the module, because looking the first time imports the floor.
    for _ in range(2):
        assert coverslip.explain is explain
        assert not any(inspect.ismodule(getattr(coverslip, name)) for name in coverslip.__all__)
