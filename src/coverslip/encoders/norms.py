"""Means and standard deviations of RGB (0..1) that several encoders share."""

from __future__ import annotations

from coverslip.encoders.info import RGB

Norm = tuple[RGB, RGB]

IMAGENET: Norm = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Norm = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
