"""The names of keypoints."""

from keywarp.engines.manifest import Keypoints

# COCO's points of persons, and the lines between them
PERSON = Keypoints(
    names=(
        *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow"),
        *("right elbow", "left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee"),
        *("left ankle", "right ankle"),
    ),
    skeleton=(
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)),
        *((1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
)


def well_known_keypoints(count: int) -> Keypoints:
    """Return COCO's keypoints if there are so many, otherwise numbered ones without a skeleton."""
    return PERSON if count == len(PERSON.names) else Keypoints(names=tuple(f"point_{n + 1}" for n in range(count)))
