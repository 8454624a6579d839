"""Recognise what the outputs of a model file mean."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from keywarp.importing.errors import ImportingError
from keywarp.importing.model_file import ImportedModel
from keywarp.importing.recognition.detectors import recognise_detection
from keywarp.importing.recognition.evidence import Evidence, shape_text
from keywarp.importing.recognition.maps import recognise_maps
from keywarp.importing.recognition.mask_sets import recognise_mask_set
from keywarp.importing.result_format import Hints, ResultFormat

__all__ = ["Hints", "ResultFormat", "recognise"]


def recognise(
    model: ImportedModel, hints: Hints | None = None, image: NDArray[np.float32] | None = None
) -> ResultFormat:
    """Guess what the outputs mean, from their names, shapes and metadata, and from their values on a picture.

    Args:
        model: The model.
        hints: What the user says, which always holds.
        image: A real picture as the network takes it, (1, 3, H, W). The guess is surer with one than with the picture
            that is drawn otherwise.

    Raises:
        ImportingError: If the outputs look like nothing that can be imported, or the hints contradict them.
    """
    hints = hints or Hints()
    if hints.quantity and hints.task is None:
        hints = replace(hints, task="dense")
    evidence = Evidence(model, hints, image)
    found = None
    if hints.task in (None, "segmentation"):
        found = recognise_mask_set(evidence)
    if found is None and hints.task in (None, "detection"):
        found = recognise_detection(evidence)
    if found is None and hints.task != "detection":
        found = recognise_maps(evidence)
    if found is None:
        listed = ", ".join(f"{o.name} {o.dtype} {shape_text(o.shape)}" for o in evidence.outputs)
        wanted = f"a {hints.task}" if hints.task else "a detector, a segmentation or a map"
        raise ImportingError(
            f"the outputs look like nothing that {wanted} gives: {listed}; export the network with outputs "
            f"of boxes and scores, or of scores per pixel"
        )
    if found.task != "dense" and (hints.quantity or hints.unit):
        raise ImportingError(
            f"quantity and unit are for maps of numbers, but this is a {found.task}: say that the task is dense, or "
            f"leave them out"
        )
    return found
