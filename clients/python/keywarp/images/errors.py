"""The errors of the reader, which have one base class. Their text is one sentence, without the name of a file.

ImageError
├── NotAnImageError        the data doesn't begin like any of the formats
├── UnsupportedImageError  it is an image, but of a kind that isn't read
├── TooManyPixelsError     it is larger than allowed
└── DamagedImageError      it begins like an image, but can't be decoded completely
"""


class ImageError(Exception):
    """The base of all errors of this package."""


class NotAnImageError(ImageError):
    """The data doesn't begin like any of the formats."""


class UnsupportedImageError(ImageError):
    """The data is an image, but of a kind that isn't read, such as one with floating-point numbers."""


class TooManyPixelsError(ImageError):
    """The image is larger than allowed."""


class DamagedImageError(ImageError):
    """The data begins like an image, but can't be decoded completely."""
