"""Lists what a serving install consists of: its packages with their licences and sizes, and libraries under the GPL.

`make audit` runs it on an environment with nothing but the extras `cpu` and `server`. It fails if a package is under a
licence that isn't known to let the server be passed on.

Example: python -m bench.serving_install .venv/lib/python3.11/site-packages --out out/packages.json
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from keywarp.experiments.report import table

# Parts of the names of licences that ask for no more than notices, or, as the MPL and LGPL, for changes of the package.
PERMISSIVE: Final = (
    *("0bsd", "apache", "bsd", "cnri", "hpnd", "isc", "llvm", "mit"),
    *("mozilla", "mpl", "psf", "python", "unlicense", "zlib"),
)
# Libraries inside wheels that are under the GPL, by the beginnings of their names.
GPL: Final = {"libx264": "GPL-2.0-or-later", "libx265": "GPL-2.0-or-later"}
OWN: Final = frozenset({"keywarp", "keywarp-client"})
INSTALLERS: Final = frozenset({"pip", "setuptools", "wheel"})


@dataclass(frozen=True)
class Package:
    """One installed package."""

    name: str
    version: str
    licence: str
    megabytes: float
    gpl: tuple[str, ...]  # its libraries that are under the GPL

    @property
    def known(self) -> bool:
        """Whether its licence lets it be passed on with the server."""
        return any(word in self.licence.lower() for word in PERMISSIVE)


def packages(folder: Path) -> Iterator[Package]:
    """Yield the packages in a folder, without our own and pip."""
    for found in distributions(path=[str(folder)]):
        if found.name.lower() in OWN | INSTALLERS:
            continue
        files = [Path(str(file.locate())) for file in found.files or ()]
        size = sum(file.stat().st_size for file in files if file.is_file())
        gpl = tuple(sorted(file.name for file in files if any(file.name.startswith(name) for name in GPL)))
        yield Package(found.name, found.version, licence_of(found), size / 1e6, gpl)


def licence_of(found: Distribution) -> str:
    """Return the licence that a package declares, in one of three ways."""
    metadata = found.metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    classified = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    if classified:
        return ", ".join(classified)
    first = re.split(r"[\n;]", (metadata.get_all("License") or ["not declared"])[0].strip())[0]
    return first[:40]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the packages, the largest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the environment's site-packages")
    parser.add_argument("--out", type=Path, help="a file for the same as JSON")
    options = parser.parse_args(arguments)
    found = sorted(packages(options.folder), key=lambda package: -package.megabytes)
    if not found:
        sys.exit(f"{options.folder} holds no packages: name an environment's site-packages")
    rows = [[one.name, one.version, one.licence, f"{one.megabytes:.1f}", ", ".join(one.gpl)] for one in found]
    total = sum(package.megabytes for package in found)
    rows.append([f"{len(found)} packages", "", "", f"{total:.0f}", ""])
    print(table(["package", "version", "licence", "MB", "libraries under the GPL"], rows))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(package) for package in found], indent=1) + "\n")
    if unknown := [f"{package.name} ({package.licence})" for package in found if not package.known]:
        sys.exit(f"licences to look at before the server is passed on: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
