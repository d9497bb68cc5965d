"""The settings of a study on a few small slides, which many tests embed and some train."""

from __future__ import annotations

STUDY = """\
format = "coverslip.study/1"
name = "small"
output = "run"

[cohort]
table = "cohort.csv"

[tiles]
size_px = 64

[task]
column = "lesion"
"""

QUICK_TRAINING = """
[split]
folds = 3

[fit]
epochs = 2

[evaluation]
resamples = 100

[heatmaps]
slides = 2
tiles = 1
annotations = "truth"
"""
