"""Say what a file is that can't be read as a video, by how it begins."""

import re
from typing import Final

from keywarp.images import is_animated
from keywarp.images.formats import format_of, other_format_of

HEAD_BYTES: Final = 512  # enough of a file to know what it is
_BEGINNINGS: Final[dict[bytes, str]] = {
    b"PK\x03\x04": "is a ZIP archive, not a video: unpack it",
    b"PK\x05\x06": "is an empty ZIP archive, not a video",
    b"\x1f\x8b": "is compressed by gzip, not a video: unpack it",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive, not a video: unpack it",
    b"Rar!\x1a\x07": "is a RAR archive, not a video: unpack it",
    b"#EXTM3U": "is a playlist whose parts can't be read",
    b"\x7fELF": "is a program, not a video",
}
_CONTAINERS: Final[dict[bytes, str]] = {
    b"\x1a\x45\xdf\xa3": "is a Matroska or WebM file",
    b"FLV": "is an FLV file",
    b"GIF8": "is a GIF",
}
_MARKUP: Final = re.compile(rb"\s*<(?:!doctype\s+)?(\?xml|[a-z]+)", re.IGNORECASE)


def describe_container(head: bytes) -> str | None:
    """Say which kind of video a file is that begins with `head`, likewise."""
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "is an AVI file"
    if head[4:8] == b"ftyp" and "video" in (other_format_of(head) or ""):
        return "is an MP4 file"
    return next((meaning for beginning, meaning in _CONTAINERS.items() if head.startswith(beginning)), None)


def describe_other(head: bytes) -> str | None:
    """Say what a file is that is no video, as the rest of a sentence, or return None if it may be one.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of it if it is shorter.
    """
    if not head:
        return "is empty"
    for beginning, meaning in _BEGINNINGS.items():
        if head.startswith(beginning):
            return meaning
    if describe_container(head):
        return None
    if form := format_of(head):
        return f"is {'an animated' if is_animated(head) else 'a'} {form} image, not a video"
    text = head.removeprefix(b"\xef\xbb\xbf")
    if markup := _MARKUP.match(text):
        return _describe_markup(markup[1].lower(), text.lower())
    if other := other_format_of(head):
        return f"is {other}, not a video"
    if text.lstrip()[:1] in (b"{", b"[") and _is_text(text):
        return "is JSON, such as an error message of a web server, not a video"
    return "is text, not a video" if _is_text(text) else None


def _describe_markup(name: bytes, text: bytes) -> str:
    if b"<svg" in text:
        return "is an SVG drawing, not a video"
    if name == b"html" or b"<html" in text:
        return "is an HTML page, such as a login or error page of a web server, not a video"
    return "is XML, such as an error message of a web server, not a video"


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # otherwise it ends inside of a character
            return False
        text = data[: error.start].decode()
    return all(letter.isprintable() or letter.isspace() for letter in text)
