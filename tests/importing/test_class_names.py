"""Names of classes come from a file, from metadata, or from the data sets that have as many."""

import json
from pathlib import Path

import pytest

from keywarp.importing import class_names
from keywarp.importing.class_names import (
    ADE20K,
    CITYSCAPES,
    COCO,
    COCO_IDS,
    VOC,
    names_in_metadata,
    read_class_names,
    well_known_names,
)
from keywarp.importing.errors import ImportingError


def test_well_known_lists_are_complete() -> None:
    assert [len(names) for names in (COCO, COCO_IDS, VOC, CITYSCAPES, ADE20K)] == [80, 80, 20, 19, 150]
    assert len(set(COCO)) == 80
    assert (COCO_IDS[0], COCO_IDS[-1]) == (1, 90)


def test_names_are_read_from_text_and_json(tmp_path: Path) -> None:
    text, listed, config = tmp_path / "a.txt", tmp_path / "b.json", tmp_path / "config.json"
    text.write_text("person\n traffic light \n\ncar\n")
    listed.write_text(json.dumps(["person", "traffic light", "car"]))
    config.write_text(json.dumps({"id2label": {"2": "car", "0": "person", "1": "traffic light"}, "other": 1}))
    for path in (text, listed, config):
        assert read_class_names(path) == ("person", "traffic light", "car")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n\n", "no names of classes"),
        ("a.txt", b"\xff\xfe\x00", "can't be read"),
        ("a.json", b"{", "isn't JSON"),
        ("a.json", b'{"0": "a", "2": "b"}', "list of names"),
        ("a.json", b'"person"', "list of names"),
        ("a.json", b"[" * 100_000, "isn't JSON"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImportingError, match=message):
        read_class_names(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportingError, match="can't be read"):
        read_class_names(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": "{0: 'cat', 1: \"dog's\"}"},
        {"names": '["cat", "dog\'s"]'},
        {"classes": "cat,dog's"},
        {"id2label": '{"0": "cat", "1": "dog\'s"}'},
    ],
)
def test_names_are_found_in_metadata(metadata: dict[str, str]) -> None:
    assert names_in_metadata(metadata) == ("cat", "dog's")


@pytest.mark.parametrize("text", ["", "{0: 'a', 5: 'b'}", "__import__('os')", "((((", "(" * 100_000, "{0: ''}"])
def test_other_metadata_are_ignored(text: str) -> None:
    assert names_in_metadata({"names": text}) is None


def test_number_alone_decides_only_where_it_is_well_known() -> None:
    assert well_known_names(80, False, False).names == COCO
    assert "COCO" in well_known_names(80, False, False).origin
    assert well_known_names(19, False, True).names == CITYSCAPES
    assert well_known_names(20, True, True).names == VOC
    assert well_known_names(3, False, False).names == ("class_1", "class_2", "class_3")


def test_the_names_are_those_of_the_training_side() -> None:
    """They stand in two places, because the training side needs PyTorch and importing must not."""
    from keywarp.datasets import classes

    assert [name for name, _ in classes.COCO[1:]] == list(class_names.COCO)
    assert [name for name, _ in classes.CITYSCAPES[1:]] == list(class_names.CITYSCAPES)
