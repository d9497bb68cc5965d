"""How long `coverslip check` takes a slide, on a synthetic cohort that it makes.

python benchmarks/preflight.py --slides 24 --side-px 4096
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from common import machine, table

from coverslip.preflight import check_cohort
from coverslip.synthetic import make_cohort


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=24)
    parser.add_argument("--side-px", type=int, default=4_096)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        truth = make_cohort(folder, slides=given.slides, damaged=1, side_px=given.side_px, seed=0)
        slides = sorted((Path(folder) / "slides").iterdir())
        rows = [measured(slides, jobs, set(truth.damaged)) for jobs in given.jobs]
    print(f"{machine()}\n\n{given.slides} slides of {given.side_px} px a side and a damaged one, seed 0\n")
    print(table(["slides at once", "s in all", "s a slide", "damaged ones found", "others that fail"], rows))


def measured(slides: list[Path], jobs: int, damaged: set[str]) -> list[str]:
    begin = time.perf_counter()
    report = check_cohort(slides, jobs=jobs)
    taken = time.perf_counter() - begin
    failed = {slide.slide for slide in report.slides if slide.verdict == "fail"}
    found, others = len(failed & damaged), len(failed - damaged)
    return [str(jobs), f"{taken:.1f}", f"{taken / len(slides):.2f}", f"{found} of {len(damaged)}", str(others)]


if __name__ == "__main__":
    main()
