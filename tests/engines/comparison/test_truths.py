from pathlib import Path

import numpy as np

from keywarp.engines import Detections
from keywarp.engines.comparison.truths import Truths
from keywarp.engines.masks import InstanceMasks


def objects(count: int) -> Detections:
    random = np.random.default_rng(count)
    windows = tuple(random.random(random.integers(0, 9, 2)) < 0.5 for _ in range(count))
    return Detections(
        random.random((count, 4), np.float32),
        random.random(count, np.float32),
        random.integers(1, 9, count),
        masks=InstanceMasks(50, 60, random.integers(0, 40, (count, 2)), windows),
        keypoints=random.random((count, 5, 3), np.float32),
    )


def test_masks_and_keypoints_are_kept_and_read_again(tmp_path: Path) -> None:
    kept = Truths(tmp_path / "truths")
    for frame, count in enumerate((3, 0, 20)):
        kept.add(0, frame, objects(count))
    kept.flush()
    for truths in (kept, Truths(tmp_path / "truths")):
        for frame, count in enumerate((3, 0, 20)):
            expected = objects(count)
            found = truths.get(0, frame, expected)
            assert isinstance(found, Detections)
            assert found.masks is not None
            assert expected.masks is not None
            assert found.keypoints is not None
            assert found.xyxy.tolist() == expected.xyxy.tolist()
            assert found.keypoints.tolist() == objects(count).keypoints.tolist()  # type: ignore[union-attr]
            assert (found.masks.height, found.masks.width) == (50, 60)
            assert (found.masks.whole() == expected.masks.whole()).all()
