import torch

from keywarp.networks.anchors import base_anchors, grid_anchors

LEGACY = torch.tensor(  # of py-faster-rcnn: the last pixel belongs to the box
    [
        (-84, -40, 99, 55),
        (-176, -88, 191, 103),
        (-360, -184, 375, 199),
        (-56, -56, 71, 71),
        (-120, -120, 135, 135),
        (-248, -248, 263, 263),
        (-36, -80, 51, 95),
        (-80, -168, 95, 183),
        (-168, -344, 183, 359),
    ]
)


def test_the_nine_anchors_equal_those_of_the_original_code() -> None:
    anchors = base_anchors(16, (0.5, 1, 2), (8, 16, 32))
    assert torch.equal(anchors, (LEGACY + torch.tensor([0, 0, 1, 1])).float())


def test_grid_anchors_are_ordered_by_row_column_and_anchor() -> None:
    base = base_anchors(16, (1,), (1, 2))
    assert base.tolist() == [[0, 0, 16, 16], [-8, -8, 24, 24]]
    grid = grid_anchors(base, rows=2, columns=3, stride=16)
    assert grid.shape == (12, 4)
    assert grid[1].tolist() == [-8, -8, 24, 24]  # row 0, column 0, anchor 1
    assert grid[2].tolist() == [16, 0, 32, 16]  # row 0, column 1, anchor 0
    assert grid[6].tolist() == [0, 16, 16, 32]  # row 1, column 0, anchor 0
    assert grid[11].tolist() == [24, 8, 56, 40]  # row 1, column 2, anchor 1
