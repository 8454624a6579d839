"""The pack for a machine with a GPU but no network: code for one kind of GPU, pieces, and what unpacks them."""

import json
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bench.gpu import pack
from bench.gpu.fatbins import CUBIN, MAGIC, PTX, entries, keep_only


def fat_binary(*contents: tuple[int, int, bytes]) -> bytes:
    """Return a fat binary of entries of a kind, for an architecture."""
    made = b""
    for kind, architecture, content in contents:
        header = struct.pack("<HHIQ", kind, 0x101, 64, len(content)).ljust(28, b"\1") + struct.pack("<I", architecture)
        made += header.ljust(64, b"\2") + content
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(made)) + made


LIBRARY = (
    b"\x7fELF and code for the processor "
    + fat_binary((CUBIN, 75, b"turing!!" * 4), (CUBIN, 90, b"hopper!!" * 8), (PTX, 90, b"text" * 4))
    + b" the magic number by chance: "
    + MAGIC
    + b" and more "
    + fat_binary((CUBIN, 35, b"kepler!!"), (CUBIN, 90, b"HOPPER!!"))
    + b" the end"
)


def test_only_the_code_for_other_gpus_is_blanked_out_and_nothing_moves() -> None:
    library = bytearray(LIBRARY)
    assert keep_only(library, (9, 0)) == {(7, 5): 32, (9, 0): 72, (3, 5): 8}
    assert len(library) == len(LIBRARY)
    for gone in (b"turing!!", b"text", b"kepler!!"):
        assert gone not in library
    for kept in (b"hopper!!" * 8, b"HOPPER!!", b"code for the processor", b" the end", b"by chance: " + MAGIC):
        assert kept in library
    described = [(e.kind, e.capability, e.size) for e in entries(library)]
    assert described == [(e.kind, e.capability, e.size) for e in entries(LIBRARY)]


def test_a_gpu_without_code_is_refused_with_a_list_of_those_that_have_some() -> None:
    with pytest.raises(ValueError, match=r"no machine code for 8\.6, only for 3\.5, 7\.5, 9\.0"):
        keep_only(bytearray(LIBRARY), (8, 6))


def test_pieces_are_small_and_unpack_in_a_clean_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "PIECE", 1000)
    site = tmp_path / "site"
    (site / "package").mkdir(parents=True)
    (site / "package" / "data.bin").write_bytes(random.Random(0).randbytes(4500))
    (site / "package" / "library.so").write_bytes(LIBRARY)
    (site / "package" / "empty.py").touch()
    pack.slim(site / "package" / "library.so", (9, 0))
    sizes = pack.write_pieces(site, tmp_path / "out")
    assert len(sizes) > 4
    assert max(sizes.values()) <= 1000
    unpack = [sys.executable, str(tmp_path / "out" / "unpack.py"), str(tmp_path / "clean")]
    subprocess.run(unpack, check=True, env={})
    found = {file.relative_to(tmp_path / "clean"): file.read_bytes() for file in (tmp_path / "clean").rglob("*.*")}
    assert found == {file.relative_to(site): file.read_bytes() for file in site.rglob("*.*")}

    piece = tmp_path / "out" / "pack.02"
    whole = piece.read_bytes()
    piece.write_bytes(whole[:-1] + b"?")
    done = subprocess.run(unpack, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "pack.02 is damaged: copy it again\n")
    piece.unlink()
    done = subprocess.run(unpack, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "pack.02 is missing\n")
    assert len(json.loads((tmp_path / "out" / "pieces.json").read_text())) == len(sizes)
