"""The anchors of RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017), as two libraries have them.

Each cell has 9 of them, of three sizes and three ratios. A file has the boxes relative to them, but not themselves.
"""

from keywarp.importing.result_format import Grid

Sizes = tuple[tuple[tuple[float, float], ...], ...]  # per level: width and height of each anchor in pixels

_RATIOS = (0.5, 1.0, 2.0)  # height / width
_SCALES = tuple(2 ** (n / 3) for n in range(3))
_BASE = 4  # size of the smallest anchor in strides


def paper_anchors(grid: Grid) -> Sizes:
    """Return the anchors of the paper, one size after the other, as NVIDIA's RetinaNet has them."""
    return tuple(
        tuple(_shape(_BASE * stride * scale, ratio) for scale in _SCALES for ratio in _RATIOS)
        for stride in grid.strides
    )


def torchvision_anchors(grid: Grid) -> Sizes:
    """Return torchvision's anchors, one ratio after the other, with whole pixels."""
    sizes = [[int(_BASE * stride * scale) for scale in _SCALES] for stride in grid.strides]
    shapes = [[_shape(size, ratio) for ratio in _RATIOS for size in level] for level in sizes]
    return tuple(tuple((2.0 * round(w / 2), 2.0 * round(h / 2)) for w, h in level) for level in shapes)


def _shape(size: float, ratio: float) -> tuple[float, float]:
    return size / ratio**0.5, size * ratio**0.5
