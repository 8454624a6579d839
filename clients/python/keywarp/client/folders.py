"""What a folder holds: videos or images, in natural order."""

import re
from pathlib import Path
from typing import Final

from keywarp.client.errors import SourceError
from keywarp.images import SUFFIXES

VIDEO_SUFFIXES: Final = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)


def folder_images(folder: Path) -> list[Path]:
    """List the images of a folder in the order of their names: `img2` comes before `img10`.

    Files whose names begin with a dot are left out. They belong to the system.

    Raises:
        SourceError: If the folder can't be read, or has no images, or videos, too.
    """
    images, videos = _list(folder)
    if images and videos:
        raise SourceError(
            f"the folder {str(folder)!r} has {len(images)} images and {len(videos)} videos, such as {images[0].name!r} "
            f"and {videos[0].name!r}: put them into folders of their own"
        )
    if videos:
        raise SourceError(
            f"the folder {str(folder)!r} has {len(videos)} videos and no images: open them one by one, or use "
            "`keywarp run` or `keywarp stream`, which take a folder of videos"
        )
    if not images:
        raise SourceError(f"there are no images in the folder {str(folder)!r}")
    return images


def folder_videos(folder: Path) -> list[Path]:
    """List the videos of a folder, by their names' endings and in natural order. Empty if it has images only.

    Raises:
        SourceError: If the folder can't be read, or has both videos and images.
    """
    images, videos = _list(folder)
    return folder_images(folder) if images and videos else videos


def _list(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folder's images and videos."""
    try:
        entries = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as error:
        raise SourceError(f"the folder {str(folder)!r} can't be read: {error.strerror}") from error
    images = [path for path in entries if path.suffix.lower() in SUFFIXES]
    return images, [path for path in entries if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]


def natural(path: Path) -> tuple[list[str | int], str]:
    """Return what a path is sorted by: the numbers in its name count as numbers."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name
