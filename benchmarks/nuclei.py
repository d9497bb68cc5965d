"""How often `coverslip check` doubts a scale (`mpp_suspect`) that is right, and tells one that is wrong.

Every H&E slide of COVERSLIP_TEST_DATA whose file or table states its µm per pixel is opened at the true scale and at
multiples of it. The limits of the check were set on these same slides, so the figures flatter it: they say what it was
made for, not what it does elsewhere.

COVERSLIP_TEST_DATA=... python benchmarks/nuclei.py
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
from common import machine, table

from coverslip.preflight.content import overview
from coverslip.preflight.nuclei import LARGEST_UM, SMALLEST_UM, nucleus_size
from coverslip.slide import Slide

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("COVERSLIP_TEST_DATA"))
    data = parser.parse_args().data
    if data is None:
        parser.error("name the folder of real slides with --data or COVERSLIP_TEST_DATA")
    paths = [*sorted((data / "prostate_slides" / "slides").iterdir()), data / "wsi" / "cmu-1-small-region.svs"]
    seconds: list[float] = []
    rows = []
    for factor in FACTORS:
        sizes = np.array([measured(path, factor, seconds) for path in paths])
        judged = sizes[~np.isnan(sizes)]
        doubted = int(((judged < SMALLEST_UM) | (judged > LARGEST_UM)).sum())
        low, middle, high = np.percentile(judged, [0, 50, 100]) if len(judged) else (np.nan,) * 3
        rows.append(
            [
                f"{factor:g}",
                f"{doubted} of {len(sizes)}",
                str(len(sizes) - len(judged)),
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
            ]
        )
    print(f"{machine()}\n\n{len(paths)} slides; {np.mean(seconds):.3f} s of one core a slide beside its overview\n")
    print(
        table(["stated scale over true", "doubted", "not judged", "µm of a nucleus, as stated: median (range)"], rows)
    )


def measured(path: Path, factor: float, seconds: list[float]) -> float:
    """The size of nuclei where the scale is stated `factor` times too large; NaN where it is not judged."""
    with Slide.open(path) as slide:
        stated = slide.require_mpp() * factor
    with Slide.open(path, mpp=stated) as slide:
        image, image_mpp = overview(slide)
        begin = time.process_time()
        size = nucleus_size(slide, image, image_mpp)
        seconds.append(time.process_time() - begin)
    return np.nan if size is None else size.um


if __name__ == "__main__":
    main()
