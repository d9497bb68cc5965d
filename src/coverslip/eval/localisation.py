"""How well tile scores find regions that someone outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.metrics import roc_auc_score

from coverslip.base.random import stream
from coverslip.eval.interval import Interval

# A tile counts as inside from this part of its area on; one that is touched less is neither inside nor outside.
INSIDE = 0.5


@dataclass(frozen=True)
class MappedSlide:
    """One annotated slide: tile scores (n,), the part of each tile inside the outlined regions (n,), its patient."""

    slide: str
    patient: str
    scores: Float[ndarray, n]
    inside: Float[ndarray, n]

    @property
    def auroc(self) -> float | None:
        """Probability that a tile inside scores higher than one outside; None where one kind is missing."""
        kinds = np.where(self.inside >= INSIDE, 1, np.where(self.inside > 0, -1, 0))
        known = kinds >= 0
        if len(set(kinds[known])) < 2:
            return None
        return float(roc_auc_score(kinds[known], self.scores[known]))

    @property
    def hit(self) -> bool:
        """True where the highest tile touches a region."""
        return bool(self.inside[int(np.argmax(self.scores))] > 0)


def localisation(slides: Sequence[MappedSlide], *, resamples: int, seed: int) -> dict[str, Any] | None:
    """The mean over slides of the tile-level AUROC, with an interval from resampling patients, and the part of slides
    whose highest tile touches a region; None where no slide has tiles both inside and outside."""
    known = [(slide, auroc) for slide in slides if (auroc := slide.auroc) is not None]
    if not known:
        return None
    patients = sorted({slide.patient for slide, _ in known})
    values = np.array([np.mean([a for s, a in known if s.patient == patient]) for patient in patients])
    rng = stream(seed, "localisation")
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    low, high = (float(q) for q in np.quantile(means, [0.025, 0.975])) if len(values) > 1 else (None, None)
    how = f"mean over slides of the tile-level AUROC, patients resampled, {resamples}, 95%"
    figure = Interval(
        float(values.mean()), None if low is None else float(low), None if high is None else float(high), how
    )
    hits = sum(slide.hit for slide, _ in known)
    bounds = "" if low is None else f" (95% {low:.3f} to {high:.3f})"
    return {
        "level": "tile",
        "auroc": figure.to_json(),
        "slides": len(known),
        "highest_tile_hits": hits,
        "by_slide": {slide.slide: auroc for slide, auroc in known},
        "text": f"tile-level AUROC {figure.value:.3f}{bounds}, mean of {len(known)} annotated slides; "
        f"the highest tile touches the region in {hits} of {len(known)}",
    }
