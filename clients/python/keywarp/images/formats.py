"""The formats of images, and how their files begin."""

from typing import Final, Literal

ImageFormat = Literal["JPEG", "PNG", "WebP", "BMP", "TIFF", "PPM"]

WIRE_FORMATS: Final[tuple[ImageFormat, ...]] = ("JPEG", "PNG", "WebP")  # what clients may send to a server
FILE_FORMATS: Final[tuple[ImageFormat, ...]] = (*WIRE_FORMATS, "BMP", "TIFF", "PPM")  # what is read from files

# Names of files that are images, by their ends. Some are of formats that aren't read, so that they are reported.
SUFFIXES: Final = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
    | {".avif", ".heic", ".heif", ".jp2", ".jxl"}
)

_BEGINNINGS: Final[dict[ImageFormat, tuple[bytes, ...]]] = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two are BigTIFF
    "PPM": (b"P5", b"P6"),  # also grey (PGM)
}
# What people try to read as images, for errors.
_OTHERS: Final[dict[str, tuple[bytes, ...]]] = {
    "GIF": (b"GIF87a", b"GIF89a"),
    "PDF": (b"%PDF",),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "OpenEXR": (b"v/1\x01",),
    "HTML": (b"<!DOCTYPE", b"<!doctype", b"<html"),
    "AppleDouble (macOS's metadata of another file)": (b"\0\5\x16\7",),
}
_HEIF_BRANDS: Final = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}


def format_of(head: bytes) -> ImageFormat | None:
    """Return the format of an image that begins with `head` (12 bytes or more), or None if it is none of ours."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for name, beginnings in _BEGINNINGS.items() if head.startswith(beginnings)), None)


def other_format_of(head: bytes) -> str | None:
    """Return the name of a format that isn't read, or None if `head` (12 bytes or more) is that of no known format."""
    if head[4:8] == b"ftyp":
        return _HEIF_BRANDS.get(head[8:12], "a video (MP4)")
    return next((name for name, beginnings in _OTHERS.items() if head.startswith(beginnings)), None)
