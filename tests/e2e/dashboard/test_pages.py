import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import Visit, check_accessibility, open_view, visiting, wait_for_pictures
from tests.e2e.dashboard.producers import feeding
from tests.e2e.running import Server


def test_the_api_documentation_needs_no_internet(visit: Visit, server: Server) -> None:
    page = visit.page
    page.goto(f"{server.url}/docs")
    expect(page.get_by_text("/v1/streams/{stream_id}/frames").first).to_be_visible()
    for group in ("Streams", "Watching", "Videos", "Events", "Models", "Operation", "Open Inference Protocol"):
        expect(page.get_by_text(group, exact=True).first).to_be_visible()
    expect(page.get_by_text("List all streams")).to_be_visible()
    page.get_by_text("/healthz").first.click()
    page.get_by_role("button", name="TRY").first.click()
    expect(page.get_by_text('"ok"').first).to_be_visible()
    page.get_by_role("link", name="Dashboard", exact=True).click()
    page.get_by_role("link", name="API", exact=True).click()
    expect(page).to_have_title("API · Keywarp")


def test_every_view_loads_without_errors(visit: Visit) -> None:
    page = visit.page
    expect(page.get_by_text("keywarp stream street.mp4")).to_be_visible()
    expect(page.locator("#server")).to_have_text("Live")
    for name in ("Wall", "Events", "Camera", "Video", "Models", "Streams"):
        open_view(page, name)
    open_view(page, "Models")
    expect(page.get_by_role("heading", name="tiny")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_is_accessible(browser: Browser, server: Server, dark: bool) -> None:
    with visiting(browser, server.url, dark=dark) as visit, feeding(server, "gate"):
        page = visit.page
        expect(page.get_by_role("link", name="gate")).to_be_visible()
        check_accessibility(page, "streams")
        page.get_by_role("button", name="Pull a URL").click()
        expect(page.get_by_label("Model")).to_have_value("tiny")
        check_accessibility(page, "pull")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("link", name="gate").click()
        wait_for_pictures(page, 1)
        check_accessibility(page, "stream")
        for name in ("Wall", "Events", "Camera", "Video", "Models"):
            open_view(page, name)
            check_accessibility(page, name)
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
            page.set_viewport_size({"width": 1280, "height": 900})


def test_the_chosen_theme_is_remembered(visit: Visit) -> None:
    page = visit.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Change to light").click()
    page.get_by_role("button", name="Change to dark").click()
    assert page.evaluate(background) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(background) != light


def test_without_a_clipboard_the_command_is_selected(visit: Visit, server: Server) -> None:
    page = visit.page
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.reload()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#toast")).to_contain_text("the command is selected")
    assert page.evaluate("getSelection().toString()") == f"keywarp stream street.mp4 --server {server.url}"


def test_an_address_with_wrong_encoding_shows_an_error(browser: Browser, server: Server) -> None:
    with visiting(browser, server.url) as visit:
        page = visit.page
        expect(page.get_by_text("No streams yet")).to_be_visible()
        page.evaluate("location.hash = '#/streams/100%'")
        expect(page.get_by_role("alert")).to_contain_text("URI malformed")
        open_view(page, "Models")


@pytest.mark.parametrize("name", ["constructor", "__proto__", "nothing"])
def test_an_unknown_address_shows_the_streams(visit: Visit, server: Server, name: str) -> None:
    visit.page.goto(f"{server.url}/#/{name}")
    expect(visit.page.get_by_role("heading", level=1, name="Streams")).to_be_visible()
    expect(visit.page.get_by_role("alert")).to_have_count(0)


def test_going_back_closes_the_dialog(visit: Visit) -> None:
    page = visit.page
    open_view(page, "Models")
    open_view(page, "Streams")
    page.get_by_role("button", name="Pull a URL").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", level=1, name="Models")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)
