"""Colours of classes."""

Color = tuple[int, int, int]  # RGB


def palette_color(number: int) -> Color:
    """Return the RGB colour of a class in the common palette of PASCAL VOC, in which class 0 is black.

    Each group of three bits of the number, from the lowest, gives the next lower bit of red, green and blue.
    """
    red, green, blue = (sum((number >> 3 * n + channel & 1) << 7 - n for n in range(8)) for channel in range(3))
    return red, green, blue
