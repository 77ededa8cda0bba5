"""Robust aggregators: rules that bound what some clients, broken or hostile, can do to the aggregate; one file each.

All but the guard judge updates against each other, so that they need every client's own update in the clear.
"""

from strategies.robust.bulyan import Bulyan
from strategies.robust.centered_clipping import CenteredClipping
from strategies.robust.geometric_median import GeometricMedian
from strategies.robust.guarded import Guarded
from strategies.robust.krum import Krum
from strategies.robust.median import CoordinateMedian
from strategies.robust.trimmed_mean import TrimmedMean

__all__ = ["Bulyan", "CenteredClipping", "CoordinateMedian", "GeometricMedian", "Guarded", "Krum", "TrimmedMean"]
