"""Video as people really have it: which stream, which way up, when, and what is missing.

The client, the server and the training data read video through this package, so that a file is the same video to all.
"""

from keywarp.videos.choice import choose_video, describe_choice
from keywarp.videos.claims import Claims
from keywarp.videos.contents import HEAD_BYTES, describe_container, describe_other
from keywarp.videos.continuity import Continuity
from keywarp.videos.ends import listed_packets
from keywarp.videos.errors import NoEncoderError, NoKeyFrameError, VideoError, WritingError
from keywarp.videos.extent import Extent, file_extent
from keywarp.videos.ledger import MAX_FAILED_UNITS, REMEMBERED, REORDERING, Origin
from keywarp.videos.opening import demux, is_format, open_container
from keywarp.videos.orientation import orientation_of, swaps_sides
from keywarp.videos.outcomes import Lost, Note, Outcome, Outcomes, Shown, left_out_note
from keywarp.videos.reading import Item, Picture, VideoReader
from keywarp.videos.sample import sample_video
from keywarp.videos.times import UnitTimes
from keywarp.videos.transport import Repeats, TransportFile
from keywarp.videos.units import (
    PATCHED_UP,
    CodecVectors,
    DecodedUnit,
    SoftwareDecoder,
    UnitDecoder,
    orientation_of_frame,
)
from keywarp.videos.writing import VideoWriter, check_encoder

__all__ = [
    "HEAD_BYTES",
    "MAX_FAILED_UNITS",
    "PATCHED_UP",
    "REMEMBERED",
    "REORDERING",
    "Claims",
    "CodecVectors",
    "Continuity",
    "DecodedUnit",
    "Extent",
    "Item",
    "Lost",
    "NoEncoderError",
    "NoKeyFrameError",
    "Note",
    "Origin",
    "Outcome",
    "Outcomes",
    "Picture",
    "Repeats",
    "Shown",
    "SoftwareDecoder",
    "TransportFile",
    "UnitDecoder",
    "UnitTimes",
    "VideoError",
    "VideoReader",
    "VideoWriter",
    "WritingError",
    "check_encoder",
    "choose_video",
    "demux",
    "describe_choice",
    "describe_container",
    "describe_other",
    "file_extent",
    "is_format",
    "left_out_note",
    "listed_packets",
    "open_container",
    "orientation_of",
    "orientation_of_frame",
    "sample_video",
    "swaps_sides",
]
