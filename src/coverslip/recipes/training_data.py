"""What training reads: the targets of the slides that have features, the folds, and the bags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from coverslip.audit import AuditFinding, audit_split, duplicate_pairs
from coverslip.base.errors import FeatureError
from coverslip.base.files import read_json
from coverslip.cohort import Fold, Split, Targets, make_targets, resolve_split, with_common_times
from coverslip.cohort.table import some
from coverslip.eval.reduce import UnitLevel
from coverslip.mil import BagSource, Target
from coverslip.recipes.job import LOG, Job
from coverslip.store import Features
from coverslip.store.feature_store import check_one_kind


@dataclass(frozen=True)
class TrainingData:
    """What training reads: targets of the slides that have features, the folds, and the bags."""

    targets: Targets
    split: Split
    bags: BagSource
    features: Mapping[str, Features]
    failed: dict[str, str]
    warnings: tuple[str, ...]

    def learning_sets(self, fold: Fold, least_tuning: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The slides that move a fold's weights, and those that choose its epoch.

        The second is empty where the fold's tuning set has under `least_tuning` patients of the scarcest class (for
        times with the scarcest event); its slides are among the first then. Test slides are in neither.
        """
        if self.targets.scarcest(fold.tune) >= max(1, least_tuning):
            return fold.train, fold.tune
        return tuple(sorted({*fold.train, *fold.tune})), ()

    @property
    def unit(self) -> UnitLevel:
        return "patient" if self.targets.level == "patient" else "slide"


def load_data(job: Job, failed: Mapping[str, str]) -> TrainingData:
    """Targets, features and folds of the study; what cannot be used is left out with its reason.

    Raises:
        TableError, SplitError: the table or the folds cannot be used.
        FeatureError: files of different encoders or widths are mixed, or there are none.
    """
    study = job.study
    targets = make_targets(job.cohort, study.task, study.cohort.classes)
    missing = {s: "no feature file" for s in targets.slides if s not in failed and job.store.find(s) is None}
    wanted = [slide for slide in targets.slides if slide not in failed and slide not in missing]
    if not wanted:
        _refuse_nothing(job, targets.slides, failed)
    features, damaged = _readable(job, wanted)
    check_one_kind(features.values())
    targets = targets.without({**missing, **failed, **damaged})
    split = resolve_split(job.cohort, targets, study.split)
    targets = with_common_times(targets, study.task, split)
    told = [
        *(f"LEAK. {finding.text}" for finding in _leaks(job, split, features)),
        *job.cohort.warnings,
        *targets.warnings,
        *split.warnings,
    ]
    for why, lost in (("for want of a feature file", missing), ("because they failed", {**failed, **damaged})):
        if lost:
            told.append(f"Left out {why}: {some(sorted(lost))} ({len(lost)} of {len(job.cohort.slides)} slides).")
    bags = BagSource(
        [features[slide] for slide in targets.slides],
        patients=targets.patient_of,
        target=bag_target(targets),
        bag=study.task.bag,
    )
    return TrainingData(targets, split, bags, features, {**failed, **damaged}, tuple(told))


def bag_target(targets: Targets) -> Target:
    """What is known of each slide, in the order of `targets.slides`."""
    y = torch.from_numpy(np.array(targets.y))
    event = torch.from_numpy(targets.frame["event"].to_numpy(np.int64)) if "event" in targets.frame else None
    return Target(
        y.float() if y.is_floating_point() else y, known=torch.isfinite(y) if y.ndim == 2 else None, event=event
    )


def _refuse_nothing(job: Job, slides: Sequence[str], failed: Mapping[str, str]) -> None:
    """Says why no slide has features: all failed, nothing was embedded yet, or the files have other names."""
    if failed:
        first = next(iter(failed))
        raise FeatureError(f"No slide is left to learn from: {len(failed)} failed; the first, {first}: {failed[first]}")
    job.store.dim(job.store.names())  # refuses an empty store
    raise FeatureError(
        f"None of the {len(slides)} slides of {job.cohort.source} (such as {slides[0]!r}) has a file in "
        f"{job.store.folder} (such as {job.store.names()[0]!r}).",
        fix="A slide is named as its feature file without the suffix, letter by letter.",
        code="missing",
    )


def _readable(job: Job, slides: Sequence[str]) -> tuple[dict[str, Features], dict[str, str]]:
    """The features of these slides, and the slides whose files are damaged, with the reasons."""
    frame = job.cohort.frame
    mpp = dict(zip(frame["slide"], frame["mpp"])) if "mpp" in frame else {}
    features: dict[str, Features] = {}
    damaged: dict[str, str] = {}
    with job.progress.stage("features", len(slides), unit="slide") as step:
        for slide in slides:
            given = mpp.get(slide)
            try:
                features[slide] = job.store.read(slide, mpp=given if given == given else None)
            except FeatureError as error:
                damaged[slide] = str(error).removeprefix(f"{slide}: ")
                job.outcomes.record(slide, "features", "failed", damaged[slide])
                LOG.warning("%s: its features cannot be used: %s", slide, damaged[slide])
            step.advance(note=slide)
    return features, damaged


def _leaks(job: Job, split: Split, features: Mapping[str, Features]) -> tuple[AuditFinding, ...]:
    """What is on both sides of a fold: patients and slides by name, images by digest and by the preflight's look."""
    digests = {s: f.identity.slide_fingerprint for s, f in features.items() if f.identity is not None}
    exact, near = duplicate_pairs(read_json(job.run.check))
    return audit_split(split, contents=digests, exact=exact, near=near)
