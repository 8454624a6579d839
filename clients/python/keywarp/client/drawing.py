"""Pictures of results: the classes in their colours, key frames marked. Needs the extra `draw`."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from keywarp.client.errors import DrawingError
from keywarp.client.results import FrameResult
from keywarp.protocol import ClassInfo, Region

BACKGROUND = 0  # this class isn't drawn
OPACITY = 0.5  # of a class's colour over the picture
LEGEND_ROWS = 6  # the largest classes have their names in the legend
LEGEND_AREA = 0.001  # of the frame; what covers less isn't named

INK = (255, 255, 255)
DIM_INK = (196, 202, 210)
PANEL = (14, 18, 24, 184)  # RGBA, behind text
KEY_INK = (30, 22, 0)
KEY_PANEL = (255, 193, 7, 255)


class Annotator:
    """Draws results on their frames.

    Example:
        >>> annotator = Annotator(client.model("street").classes)
        >>> picture = annotator.annotate(result.image, result)
    """

    def __init__(self, classes: Iterable[ClassInfo]) -> None:
        """Learn the classes' names and colours.

        Raises:
            DrawingError: The extra `draw` isn't installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise DrawingError("drawing needs supervision: pip install 'keywarp-client[draw]'") from error
        self._sv = supervision
        self._colors = {info.id: info.color for info in classes if info.id != BACKGROUND}
        # supervision paints BGR; swapping red and blue here spares two conversions of each picture.
        swapped = [(b, g, r) for r, g, b in (self._colors.get(i, INK) for i in range(max(self._colors, default=0) + 1))]
        self._palette = supervision.ColorPalette([supervision.Color(*color) for color in swapped])
        self._masks = supervision.MaskAnnotator(self._palette, opacity=OPACITY)

    def annotate(self, image: NDArray[np.uint8], result: FrameResult) -> NDArray[np.uint8]:
        """Draw a result on a copy of its frame.

        Args:
            image: The frame, RGB (H, W, 3).
            result: Its result.

        Returns:
            The picture, RGB (H, W, 3): the classes' masks, at the top left `KEY` or the age of the key frame and the
            latency, at the bottom left the names of the largest classes.
        """
        picture = image.copy()
        regions: Sequence[Region] = ()
        if result.result.segmentation is not None:
            self._draw_masks(picture, result.labels)
            regions = result.result.segmentation.regions
        canvas = Image.fromarray(picture)
        text = _Text(canvas)
        _draw_tag(text, result)
        self._draw_legend(text, regions)
        return np.asarray(canvas)

    def _draw_masks(self, picture: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        ids = np.array([i for i in np.unique(labels) if i in self._colors], dtype=np.intp)
        if not ids.size:
            return
        masks = np.stack([_resize_mask(labels == i, width, height) for i in ids])
        detections = self._sv.Detections(xyxy=self._sv.mask_to_xyxy(masks), mask=masks, class_id=ids)
        self._masks.annotate(picture, detections)
        thickness = max(1, round(height / 480))
        self._sv.PolygonAnnotator(self._palette, thickness=thickness).annotate(picture, detections)

    def _draw_legend(self, text: "_Text", regions: Sequence[Region]) -> None:
        named = [r for r in regions if r.area >= LEGEND_AREA and r.class_id in self._colors]
        named = sorted(named, key=lambda region: -region.area)[:LEGEND_ROWS]
        if not named:
            return
        swatch = round(text.size * 0.8)
        row = round(text.size * 1.5)
        gap = text.pad
        shares = [f"{region.area:.0%}" if region.area >= 0.01 else "<1%" for region in named]
        names_width = max(text.width(region.name) for region in named)
        shares_width = max(map(text.width, shares))
        panel_width = 5 * gap + swatch + names_width + shares_width
        top = text.canvas.height - text.margin - row * len(named) - gap
        text.panel(text.margin, top, panel_width, row * len(named) + gap, PANEL)
        for line, (region, share) in enumerate(zip(named, shares, strict=True)):
            left = text.margin + round(1.5 * gap)
            middle = top + gap // 2 + row * line + row // 2
            text.panel(left, middle - swatch // 2, swatch, swatch, (*self._colors[region.class_id], 255), swatch // 4)
            text.write(left + swatch + gap, middle, region.name, INK)
            text.write(text.margin + panel_width - round(1.5 * gap), middle, share, DIM_INK, anchor="rm")


class _Text:
    """Text of a size that suits the picture."""

    def __init__(self, canvas: Image.Image) -> None:
        self.canvas = canvas
        self.size = round(7 + 0.022 * min(canvas.height, canvas.width))
        self.pad = max(4, round(self.size * 0.5))
        self.margin = self.pad + 2
        self._draw = ImageDraw.Draw(canvas, "RGBA")
        self._font = ImageFont.load_default(self.size)

    def width(self, text: str) -> int:
        return round(self._font.getlength(text))

    def panel(
        self, left: int, top: int, width: int, height: int, color: tuple[int, int, int, int], radius: int | None = None
    ) -> None:
        corners = (left, top, left + width - 1, top + height - 1)
        self._draw.rounded_rectangle(corners, self.pad if radius is None else radius, fill=color)

    def write(self, left: int, middle: int, text: str, ink: tuple[int, int, int], anchor: str = "lm") -> None:
        self._draw.text((left, middle), text, fill=ink, font=self._font, anchor=anchor)


def _draw_tag(text: _Text, result: FrameResult) -> None:
    """Write KEY, or how many frames ago the key frame was, and the latency."""
    is_key = result.kind == "key"
    mark = "KEY" if is_key else f"+{result.key_age}"
    height = round(text.size * 1.5)
    middle = text.margin + height // 2
    # As wide as KEY at least: so the latency stays where it is from frame to frame.
    mark_width = 2 * text.pad + max(text.width("KEY"), text.width(mark))
    text.panel(text.margin, text.margin, mark_width, height, KEY_PANEL if is_key else PANEL)
    text.write(text.margin + mark_width // 2, middle, mark, KEY_INK if is_key else INK, anchor="mm")
    if result.latency is not None:
        latency = f"{result.latency * 1000:.0f} ms"
        left = text.margin + mark_width + text.pad // 2
        latency_width = 2 * text.pad + max(text.width("000 ms"), text.width(latency))
        text.panel(left, text.margin, latency_width, height, PANEL)
        text.write(left + latency_width - text.pad, middle, latency, INK, anchor="rm")


def _resize_mask(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    if mask.shape == (height, width):
        return mask
    # Bilinear and a threshold: edges come out smooth, not as steps.
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey) >= 128
