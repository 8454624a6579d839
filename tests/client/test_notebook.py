"""Results in notebooks: short texts, pictures, tables of pandas, and lengths for progress bars."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from keywarp.client import Client, ProcessedFrame, TableError, open_source, to_pandas
from keywarp.protocol import ClassInfo, Detection, Region, Result, Segmentation, Timings
from tests.client.media import write_video
from tests.client.scripted import ScriptedPeer

CLASSES = (ClassInfo(id=0, name="background", color=(0, 0, 0)), ClassInfo(id=1, name="<b>", color=(255, 0, 0)))
TIMINGS = Timings(decode=0, queue=0, inference=0.01, postprocess=0)


def detected(frame: int = 3, image: bool = True, count: int = 2) -> ProcessedFrame:
    found = tuple(
        Detection(xyxy=(8.0 * n, 4, 8.0 * n + 8, 20), confidence=0.9 - 0.1 * n, class_id=1, name="<b>", track_id=n + 7)
        for n in range(count)
    )
    result = Result(
        stream="gate",
        frame=frame,
        timestamp=frame / 10,
        width=64,
        height=48,
        kind="propagated",
        key_age=2,
        timings=TIMINGS,
        detections=found,
    )
    return ProcessedFrame(
        result, np.full((48, 64, 3), 90, np.uint8) if image else None, latency=0.0123, classes=CLASSES
    )


def segmented() -> ProcessedFrame:
    regions = (Region(class_id=1, name="road", area=0.25), Region(class_id=2, name="car", area=0.5))
    segmentation = Segmentation(width=8, height=6, regions=regions)
    result = Result(
        stream="s", frame=0, width=64, height=48, kind="key", key_age=0, timings=TIMINGS, segmentation=segmentation
    )
    return ProcessedFrame(result)


def test_a_result_prints_as_one_short_line() -> None:
    line = "<frame 3 of gate: propagated, key age 2, 2 objects (<b> #7 90 %, <b> #8 80 %), 12.3 ms>"
    assert repr(detected()) == line
    assert repr(segmented()) == "<frame 0 of s: key, car 50.0 %, road 25.0 %>"
    assert repr(detected().detections).startswith("<2 objects: xyxy (2, 4), confidence (2,), class_id (2,)")
    assert len(repr(detected(count=90))) < 200


def test_a_result_is_shown_as_the_annotated_picture() -> None:
    png = detected()._repr_png_()
    assert png is not None
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape == (48, 64, 3)
    assert (picture != 90).any()
    assert detected(image=False)._repr_png_() is None


def test_without_the_extra_draw_there_is_only_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    assert detected()._repr_png_() is None
    assert "<img" not in detected()._repr_html_()
    assert "<table>" in detected()._repr_html_()


def test_the_page_escapes_names_and_lists_the_first_objects() -> None:
    page = detected(count=20)._repr_html_()
    assert "&lt;b&gt; #7" in page
    assert "<b>" not in page
    assert page.count("<tr>") == 12
    assert "and 8 more" in page
    assert page.count("data:image/png;base64,") == 1


def test_a_table_has_one_row_for_each_object_or_class() -> None:
    table = to_pandas([detected(3), detected(4, count=0), detected(5, count=1), segmented()])
    assert table["frame"].tolist() == [3, 3, 5, 0, 0]
    assert table["track_id"].tolist()[:3] == [7, 8, 7]
    assert table["track_id"].isna().tolist() == [False] * 3 + [True] * 2
    assert table["name"].tolist() == ["<b>", "<b>", "<b>", "road", "car"]
    assert table["area"].tolist() == pytest.approx([8 * 16 / (64 * 48)] * 3 + [0.25, 0.5])
    assert table["x2"].tolist()[:2] == [8, 16]
    assert str(table["timestamp"].dtype) == "float64"
    assert to_pandas([]).columns.tolist() == table.columns.tolist()


def test_without_pandas_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(TableError, match="extra `pandas`"):
        to_pandas([detected()])


def test_importing_the_client_imports_no_pandas() -> None:
    code = "import sys, keywarp.client; sys.exit('pandas' in sys.modules or 'supervision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_sources_and_streams_have_lengths_for_progress_bars(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4")
    with open_source(video) as source:
        assert len(source) == 20
    with ScriptedPeer() as server, Client(server.address) as client:
        with client.stream(video) as stream, tqdm(stream, disable=None) as bar:
            assert (len(stream), bar.total) == (20, 20)
            assert len(stream.to_pandas()["frame"].unique()) <= 20
        endless = (np.zeros((8, 8, 3), np.uint8) for _ in range(3))
        with client.stream(endless) as stream:
            assert stream
            with pytest.raises(TypeError, match="unknown"):
                len(stream)
            assert len(list(stream)) == 3
