"""Slides, cohorts and bags with known answers: what the demo and the tests run on."""

from coverslip.synthetic.cohort import CohortTruth, make_cohort
from coverslip.synthetic.damage import damage
from coverslip.synthetic.features import PlantedBags, make_bags
from coverslip.synthetic.pyramid import write_pyramid
from coverslip.synthetic.recipe import SITES, Site, SlideRecipe, Truth
from coverslip.synthetic.slides import draw, make_slide

__all__ = [
    "SITES",
    "CohortTruth",
    "PlantedBags",
    "Site",
    "SlideRecipe",
    "Truth",
    "damage",
    "draw",
    "make_bags",
    "make_cohort",
    "make_slide",
    "write_pyramid",
]
