import json
import re
from pathlib import Path

import av
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import Visit, check_accessibility, open_view, visiting, wait_for_pictures
from tests.e2e.running import Server, street_video, write_clip


def test_a_video_is_sent_and_played_with_its_results(visit: Visit) -> None:
    page = visit.page
    open_view(page, "Video")
    page.get_by_label("Choose a video").set_input_files(street_video())
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Done: 250 results, 25 of them key frames")).to_be_visible()
    wait_for_pictures(page, 5)
    with page.expect_download() as saving:
        page.get_by_role("button", name="Results").click()
    lines = [json.loads(line) for line in Path(saving.value.path()).read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(250))
    assert saving.value.suggested_filename == "bikes.mp4.ndjson"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_sample_video_is_measured_and_its_annotated_video_saved(
    browser: Browser, server: Server, dark: bool
) -> None:
    with visiting(browser, server.url, dark=dark) as visit:
        page = visit.page
        page.get_by_role("link", name="Try the sample video").click()
        expect(page.get_by_role("region", name="Summary")).to_be_visible()
        page.get_by_role("button", name="Pause").click()  # so that the comparison needn't wait for the end of the video
        expect(page.get_by_text("Done: measured with key frames and on every frame")).to_be_visible()
        summary = page.get_by_role("region", name="times as fast as on every frame")
        expect(summary.get_by_role("columnheader", name="A key frame every 10")).to_be_visible()

        def figures(row: str) -> list[str]:
            return summary.get_by_role("row", name=row).get_by_role("cell").all_inner_texts()

        keyed, every_frame = (float(text.replace(",", "")) for text in figures("Frames a second"))
        assert min(keyed, every_frame) > 1
        assert figures("Share of key frames") == ["10 %", "100 %"]
        assert figures("Results") == ["250", "250"]
        assert figures("Dropped or failed") == ["0", "0"]
        assert all(re.fullmatch(r"[\d.,]+m?s", text.replace(" ", "")) for text in figures("Latency, median"))
        check_accessibility(page, "summary")
        with page.expect_download() as saving:
            summary.get_by_role("button", name="Annotated video (MP4)").click()
        assert saving.value.suggested_filename == "sample-annotated.mp4"
        with av.open(saving.value.path(), "r") as video:
            assert (video.streams.video[0].width, sum(1 for _ in video.decode(video=0))) == (640, 250)
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert visit.errors == []


def test_an_uploaded_video_is_compared_on_demand(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    clip = write_clip(tmp_path / "clip.mp4", 40)
    open_view(page, "Video")
    page.get_by_label("Choose a video").set_input_files(clip)
    page.get_by_label("Key interval").fill("5")
    page.get_by_role("button", name="Start").click()
    summary = page.get_by_role("region", name="Summary")
    expect(summary.get_by_role("row", name="Share of key frames").get_by_role("cell")).to_have_text(["20 %"])
    summary.get_by_role("button", name="Compare with every frame").click()
    compared = page.get_by_role("region", name="times as fast as on every frame")
    expect(compared.get_by_role("row", name="Share of key frames").get_by_role("cell")).to_have_text(["20 %", "100 %"])


def test_without_a_sample_video_the_page_says_how_to_get_one(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        detail = "there is no sample video: the server's operator can install the extra `demo`"
        page.route("**/sample.mp4", lambda route: route.fulfill(status=404, json={"detail": detail}))
        open_view(page, "Video")
        page.get_by_role("button", name="Try the sample video").click()
        expect(page.get_by_role("alert")).to_contain_text("can install the extra")


def test_a_file_that_is_not_a_video_is_refused_with_a_reason(visit: Visit, tmp_path: Path) -> None:
    text, broken = tmp_path / "notes.txt", tmp_path / "broken.mp4"
    text.write_text("this is no video")
    broken.write_text("this is no video")
    page = visit.page
    open_view(page, "Video")
    for file, message in ((text, "This isn't a video"), (broken, "The video is not an MP4")):
        page.get_by_label("Choose a video").set_input_files(file)
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("alert")).to_contain_text(message)
        expect(page.get_by_role("button", name="Start")).to_be_visible()
