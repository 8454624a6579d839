"""Images in files as sources: a folder of them, one, or the pictures of an animation."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, Self

from keywarp.client.errors import SourceError
from keywarp.client.folders import folder_images
from keywarp.client.frames import DEFAULT_FPS, Frame, Source
from keywarp.images import FILE_FORMATS, ImageError, decode_animation, decode_image, is_animated

MAX_REPORTED: Final = 3  # images that an error names
_HEAD_BYTES: Final = 4096  # enough to see whether a file is an animation


class ImageSource(Source):
    """Images in the order given. They have no timestamps.

    An image that can't be read is left out, and reported at the end.
    """

    def __init__(self, paths: Sequence[Path], *, upright: bool = True) -> None:
        """Read the first image that can be read, to find the size of the frames.

        Args:
            paths: The files.
            upright: Whether they are turned as their EXIF orientation says.

        Raises:
            SourceError: If none of them can be read.
        """
        self._upright = upright
        self._failed: list[tuple[Path, str]] = []
        self._frames = self._read(paths)
        self.fps = DEFAULT_FPS
        self.count: int | None = len(paths)
        first = next(self._frames, None)
        if first is None:
            raise self._damage()
        self.height, self.width = first.image.shape[:2]
        self._frames = chain((first,), self._frames)

    @classmethod
    def folder(cls, folder: Path, *, upright: bool = True) -> Self:
        """Open the images of a folder, see `folder_images`.

        Raises:
            SourceError: If there is no image in the folder, or none that can be read, or there are videos, too.
        """
        return cls(folder_images(folder), upright=upright)

    def __iter__(self) -> Iterator[Frame]:
        """Read the images, one at a time. The one after those that can't be read has a `gap`.

        Raises:
            SourceError: If some can't be read, after those that can.
        """
        yield from self._frames
        if self._failed:
            raise self._damage()

    def _read(self, paths: Sequence[Path]) -> Iterator[Frame]:
        gap = False
        for path in paths:
            try:
                image = decode_image(path.read_bytes(), formats=FILE_FORMATS, upright=self._upright)
            except (ImageError, OSError) as error:
                self._failed.append((path, _reason(error)))
                self.missing, gap = self.missing + 1, True
                continue
            yield Frame(image, None, gap=gap)
            gap = False

    def _damage(self) -> SourceError:
        if self.count == 1:
            [(path, reason)] = self._failed
            return SourceError(f"the image {str(path)!r} can't be read: {reason}")
        named = ", ".join(f"{path.name!r} ({reason})" for path, reason in self._failed[:MAX_REPORTED])
        more = len(self._failed) - MAX_REPORTED
        return SourceError(
            f"{len(self._failed)} of the {self.count} images in {str(self._failed[0][0].parent)!r} can't be read: "
            f"{named}{f' and {more} more' if more > 0 else ''}"
        )


class AnimationSource(Source):
    """The pictures of an animated WebP or PNG, which FFmpeg doesn't decode everywhere."""

    def __init__(self, path: Path, data: bytes, *, upright: bool = True) -> None:
        """Decode the first picture.

        Raises:
            SourceError: If it can't be decoded.
        """
        self._path = path
        pictures = decode_animation(data, upright=upright)
        try:
            first = next(pictures)
        except ImageError as error:
            raise self._damage(0, error) from error
        self._pictures = chain((first,), pictures)
        self.height, self.width = first.pixels.shape[:2]
        self.fps = 1 / first.duration if first.duration else DEFAULT_FPS
        self.count = None

    def __iter__(self) -> Iterator[Frame]:
        """Decode the pictures, one at a time.

        Raises:
            SourceError: If the file is damaged, after the pictures that could be decoded.
        """
        decoded = 0
        try:
            for picture in self._pictures:
                yield Frame(picture.pixels, picture.timestamp)
                decoded += 1
        except ImageError as error:
            raise self._damage(decoded, error) from error

    def _damage(self, decoded: int, error: ImageError) -> SourceError:
        self.missing = 1  # or more
        return SourceError(f"{str(self._path)!r} is damaged: {decoded} frames could be decoded ({error})")


def open_image_file(path: Path, *, upright: bool = True) -> Source:
    """Open an image, or an animation, as a source.

    Raises:
        SourceError: If it can't be read.
    """
    try:
        with path.open("rb") as file:
            animated = is_animated(file.read(_HEAD_BYTES))
        if animated:
            return AnimationSource(path, path.read_bytes(), upright=upright)
    except OSError as error:
        raise SourceError(f"the image {str(path)!r} can't be read: {error.strerror}") from error
    return ImageSource([path], upright=upright)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
