"""Detection on the host, which turns the outputs of a head's graph into objects."""

from keywarp.engines.detection.dense import DenseDetector
from keywarp.engines.detection.regions import RegionDetector

__all__ = ["DenseDetector", "RegionDetector"]
