"""Files that people take for videos, and what they are."""

import gzip
import io
import zipfile
from typing import Final

import numpy as np
from PIL import Image


def _image(form: str, frames: int = 1) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8)) for number in range(frames)]
    first.save(file, form, save_all=frames > 1, append_images=others)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("video.mp4", b"content" * 100)
    return file.getvalue()


SVG: Final = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h9"/></svg>'
# https://github.com/carlosflorencio/laracasts-downloader/issues/57 and
# https://github.com/hakanersu/codecourse-downloader/issues/10 (pages), https://github.com/mpv-player/mpv/issues/13789
OTHERS: Final = {
    "page": (b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>", "is an HTML page, such as a login"),
    "page-with-bom": (b"\xef\xbb\xbf<html lang=de>", "is an HTML page, such as a login"),
    "answer": (b'{"error": "unauthorized"}', "is JSON, such as an error message"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is XML, such as an error message"),
    "drawing": (SVG, "is an SVG drawing"),
    "animation": (_image("WEBP", 3), "is an animated WebP image, not a video"),
    "archive": (_archive(), "is a ZIP archive, not a video: unpack it"),
    "compressed": (gzip.compress(b"content" * 100), "is compressed by gzip"),
    "document": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"1 0 obj\n" * 100, "is PDF"),
    "text": ("Fehler: Gerät nicht erreichbar\n".encode(), "is text, not a video"),
}
