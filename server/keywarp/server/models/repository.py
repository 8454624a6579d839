"""Find bundles in the models folder. Names are compared with those of the listed bundles, and never used as paths."""

from collections.abc import Mapping
from pathlib import Path

from keywarp.engines import Bundle, BundleError, load_bundle
from keywarp.engines.bundle import read_manifest
from keywarp.engines.manifest import MANIFEST
from keywarp.engines.shipped import DEFAULT_MODELS, shipped_bundles
from keywarp.server.errors import LoadFailedError, UnknownModelError


def load_bundles(path: Path, *, keep: bool = False) -> tuple[Bundle, ...]:
    """Load all bundles of a folder, or the one bundle that the folder itself is.

    Args:
        path: The folder. If it is the default one and there is no bundle in it, the bundles that come with Keywarp are
            loaded.
        keep: See `load_bundle`.

    Returns:
        The bundles, sorted by name; at least one.

    Raises:
        BundleError: If there is no bundle, one can't be used, or two have the same name.
    """
    folders = _folders(path)
    if not folders:
        raise BundleError(
            f"there is no bundle in {path}: a bundle is a folder with {MANIFEST}. `keywarp import` makes one of an "
            "ONNX file; without --models, and without a folder `models`, the shipped ones are served"
        )
    bundles: dict[str, Bundle] = {}
    for folder in folders:
        bundle = load_bundle(folder, keep=keep)
        if other := bundles.get(bundle.name):
            raise BundleError(f"{other.path} and {folder} are both named {bundle.name!r}: rename or move one")
        bundles[bundle.name] = bundle
    return tuple(bundles[name] for name in sorted(bundles))


def find_folder(path: Path, name: str) -> Path:
    """Return the folder of the bundle with this name. The bundle isn't checked for damage.

    Raises:
        UnknownModelError: If there is no bundle of that name. The message lists the existing bundles.
        LoadFailedError: If two bundles have that name.
    """
    found = list_folders(path)
    match found.get(name):
        case [folder]:
            return folder
        case None:
            known = ", ".join(sorted(found)) or "none"
            raise UnknownModelError(f"there is no bundle {name[:64]!r} in the models folder; there are: {known}")
        case folders:
            names = " and ".join(folder.name for folder in folders)
            raise LoadFailedError(f"{names} are both named {name!r}: rename or move one")


def list_folders(path: Path) -> Mapping[str, list[Path]]:
    """Return the folders of bundles by the bundle's name, or by the folder's name if the manifest can't be read."""
    found: dict[str, list[Path]] = {}
    for folder in _folders(path):
        try:
            name = read_manifest(folder).name
        except BundleError:
            name = folder.name
        found.setdefault(name, []).append(folder)
    return found


def _folders(path: Path) -> list[Path]:
    if (path / MANIFEST).exists():
        return [path]
    folders = sorted(file.parent for file in path.glob(f"*/{MANIFEST}"))
    return folders if folders or path != DEFAULT_MODELS else [*shipped_bundles().values()]
