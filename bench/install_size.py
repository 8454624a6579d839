"""Measures what an installation takes on disk, for each extra: the README's extras from built wheels.

Packages are installed into empty folders, without compiled Python files. Each row after the first three is an extra on
top of `keywarp[cpu,server]`.

Example: make wheels && python -m bench.install_size
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from keywarp.experiments.report import table

ROOT = Path(__file__).parents[1]
SERVING = ("cpu", "server")
ON_TOP = ("draw", "demo", "jit", "mqtt", "otel", "pandas", "parquet")


@dataclass(frozen=True)
class Size:
    """What one installation takes."""

    installed: str
    megabytes: float  # of 1,000,000 bytes
    packages: int
    largest: dict[str, float]  # in megabytes, by the package's folder


def wheel(name: str) -> Path:
    """Find a wheel that `make wheels` has built."""
    found = sorted((ROOT / "dist").glob(f"{name}-[0-9]*.whl"))
    if not found:
        sys.exit(f"there is no wheel of {name} in dist/: run `make wheels`")
    return found[-1]


def measure(title: str, *requirements: str) -> Size:
    """Install requirements into an empty folder and measure it."""
    with tempfile.TemporaryDirectory() as folder:
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-compile")
        constraints = ("--constraint", ROOT / "constraints.txt")
        subprocess.run([*pip, *constraints, "--target", folder, *requirements], check=True)
        sizes = {entry.name: _bytes(entry) / 1e6 for entry in Path(folder).iterdir()}
    largest = dict(sorted(sizes.items(), key=lambda size: -size[1])[:6])
    packages = sum(name.endswith(".dist-info") for name in sizes)
    return Size(title, round(sum(sizes.values()), 1), packages, {name: round(s, 1) for name, s in largest.items()})


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra", action="append", help=f"an extra to add (default: {', '.join(ON_TOP)})")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    client, whole = wheel("keywarp_client"), wheel("keywarp")
    rows = [measure("the client", str(client)), measure("`keywarp`", str(client), str(whole))]
    for extras in (SERVING, *((*SERVING, extra) for extra in arguments.extra or ON_TOP)):
        title = f"`keywarp[{','.join(extras)}]`"
        rows.append(measure(title, str(client), f"{whole}[{','.join(extras)}]"))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    serving = rows[2].megabytes
    body = [
        [
            row.installed,
            f"{row.megabytes:.0f} MB",
            f"+{row.megabytes - serving:.0f} MB" if number > 2 else "",
            ", ".join(f"{name} {size:.0f}" for name, size in row.largest.items()),
        ]
        for number, row in enumerate(rows)
    ]
    print(table(["installed", "size", "on top", "largest folders in MB"], body))


if __name__ == "__main__":
    main()
