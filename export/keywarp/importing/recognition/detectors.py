"""Recognise a detector's outputs.

==========  =======================================================================================================
selected    boxes, scores and labels of objects, which a suppression or a set's last step has left (torchvision,
            RT-DETR as it is deployed, mmdeploy, YOLO with the suppression in the graph, YOLOv10 and YOLO26)
pairs       one output of boxes and one of scores (DETR and its kin, SSD, YOLO-NAS)
tables      one output with a row or column per box (YOLO, NanoDet)
levels      outputs for each stride (raw heads)
==========  =======================================================================================================
"""

from collections.abc import Callable

from keywarp.importing.recognition.evidence import Evidence
from keywarp.importing.recognition.guesses import Guess, result_format
from keywarp.importing.recognition.levels import guess_levels
from keywarp.importing.recognition.pairs import guess_pair
from keywarp.importing.recognition.selected import guess_selected, guess_selected_table
from keywarp.importing.recognition.tables import guess_table
from keywarp.importing.result_format import ResultFormat

_RECOGNISERS: tuple[Callable[[Evidence], Guess | None], ...] = (
    guess_selected,
    guess_selected_table,
    guess_pair,
    guess_table,
    guess_levels,
)


def recognise_detection(evidence: Evidence) -> ResultFormat | None:
    """Return what the outputs mean if they look like a detector's.

    Args:
        evidence: The outputs.

    Raises:
        ImportingError: If the hints contradict the outputs.
    """
    guess = next((g for recogniser in _RECOGNISERS if (g := recogniser(evidence))), None)
    return result_format(guess, evidence) if guess else None
