"""Read images: the one reader of the client, the server and training."""

from keywarp.images.errors import (
    DamagedImageError,
    ImageError,
    NotAnImageError,
    TooManyPixelsError,
    UnsupportedImageError,
)
from keywarp.images.formats import FILE_FORMATS, SUFFIXES, WIRE_FORMATS, ImageFormat
from keywarp.images.reader import MAX_PIXELS, AnimationFrame, decode_animation, decode_image, is_animated

__all__ = [
    "FILE_FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "WIRE_FORMATS",
    "AnimationFrame",
    "DamagedImageError",
    "ImageError",
    "ImageFormat",
    "NotAnImageError",
    "TooManyPixelsError",
    "UnsupportedImageError",
    "decode_animation",
    "decode_image",
    "is_animated",
]
