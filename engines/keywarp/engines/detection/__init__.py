"""Detection: from what a head's graph hands over to objects, on the host."""

from keywarp.engines.detection.dense import DenseDetector
from keywarp.engines.detection.regions import RegionDetector

__all__ = ["DenseDetector", "RegionDetector"]
