"""Tracks: which detections on successive frames are the same object.

Association follows ByteTrack (Zhang et al., ECCV 2022): detections are matched to predicted boxes, the confident ones
first. What is our own is the prediction: on propagated frames, boxes move along the flow that moved the features.
"""

from keywarp.engines.tracks.tracker import Tracker

__all__ = ["Tracker"]
