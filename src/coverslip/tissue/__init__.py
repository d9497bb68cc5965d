"""Where tissue is on a slide, and what spoils it."""

from coverslip.tissue.mask import LAYER_COLOURS, TissueMask
from coverslip.tissue.overlay import overlay
from coverslip.tissue.override import find_override, mask_from_geojson, mask_from_image
from coverslip.tissue.quality import quality_layers
from coverslip.tissue.segment import clean, segment, segment_image

__all__ = [
    "LAYER_COLOURS",
    "TissueMask",
    "clean",
    "find_override",
    "mask_from_geojson",
    "mask_from_image",
    "overlay",
    "quality_layers",
    "segment",
    "segment_image",
]
