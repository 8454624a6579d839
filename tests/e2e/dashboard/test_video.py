import json
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.dashboard.browsing import Visit, open_view, wait_for_pictures
from tests.e2e.running import street_video


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
