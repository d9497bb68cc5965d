"""How a slide is cut into tiles, and how values of tiles become a picture."""

from coverslip.tiles.plan import grid, plan
from coverslip.tiles.raster import Raster, raster

__all__ = ["Raster", "grid", "plan", "raster"]
