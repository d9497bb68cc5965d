"""Floor 8: bags of tiles to slide-level predictions. One method a file in `methods/`, one task a file in `tasks/`."""

from coverslip.mil.bags import Aggregator, BagOutput, Bags, LearningSet, StagedAggregator, pack
from coverslip.mil.build import build_aggregator, build_augment, build_task, make_task
from coverslip.mil.fit import fit_bags
from coverslip.mil.model import SlideModel
from coverslip.mil.origin import FeatureOrigin
from coverslip.mil.source import BagSource, LabelledBags
from coverslip.mil.target import Target

__all__ = [
    "Aggregator",
    "BagOutput",
    "BagSource",
    "Bags",
    "FeatureOrigin",
    "LabelledBags",
    "LearningSet",
    "SlideModel",
    "StagedAggregator",
    "Target",
    "build_aggregator",
    "build_augment",
    "build_task",
    "fit_bags",
    "make_task",
    "pack",
]
