"""The wall of live pictures, and the legend of a live picture."""

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.browsing import check_accessibility, open_view, visiting, wait_until
from tests.e2e.dashboard.producers import feeding, ip_camera
from tests.e2e.running import Server

# Shows the legends of results one after the other as the viewer does, and returns the last one's entries.
LEGEND = """async ([results, classes]) => {
    const { Viewer } = await import("/dashboard/viewer.js");
    const viewer = new Viewer("");
    for (const result of results) viewer.showLegend(result, classes);
    return [...viewer.legend.children].map((entry) => entry.textContent);
}"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_wall_shows_every_stream_with_its_state(browser: Browser, server: Server, dark: bool) -> None:
    cameras = ["a", "b", "c", "d", "e", "f"]  # as many as connections that a browser opens to one server
    with visiting(browser, server.url, dark=dark) as visit, ip_camera() as address:
        page = visit.page
        for camera in (*cameras, "g"):
            source = address if camera != "g" else "http://127.0.0.1:9/"
            httpx.post(f"{server.url}/v1/streams", json={"id": camera, "source": source}).raise_for_status()
        httpx.put(f"{server.url}/v1/streams/a/rules", json={"title": "Front gate"}).raise_for_status()
        open_view(page, "Wall")
        tiles = page.get_by_role("list", name="Streams").get_by_role("listitem")
        expect(tiles).to_have_count(7)
        for tile in tiles.filter(has_text="Running").all():
            wait_until(page, lambda: int(tile.locator("canvas").get_attribute("data-pictures") or 0) >= 2, "pictures")  # noqa: B023
        expect(tiles.filter(has_text="Running")).to_have_count(6)
        away = tiles.filter(has_text="Retrying")
        expect(away).to_contain_text("Connection refused")
        check_accessibility(page, "wall")
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        with feeding(server, "new"):
            expect(tiles.filter(has_text="new")).to_be_visible()
        expect(tiles.filter(has_text="new")).to_have_count(0)
        tiles.filter(has_text="Front gate").get_by_role("link").click()
        expect(page.get_by_role("heading", level=1, name="a")).to_be_focused()
        for camera in (*cameras, "g"):
            httpx.delete(f"{server.url}/v1/streams/{camera}").raise_for_status()
        assert visit.errors == []


def test_the_legend_has_every_class_that_the_mask_shows(browser: Browser, server: Server) -> None:
    classes = [{"id": i, "name": f"class {i}", "color": [20 * i, 0, 0]} for i in range(10)]
    areas = {1: 0.0004, 2: 0.3, 3: 0.004, 9: 0.5}
    regions = [{"class_id": i, "name": f"class {i}", "area": area} for i, area in areas.items()]
    with visiting(browser, server.url) as visit:
        found = visit.page.evaluate(LEGEND, [[{"segmentation": {"regions": regions}}], classes])
        assert found == ["class 950 %", "class 230 %", "class 3<1 %", "class 1<1 %"]
        many = [{"class_id": i, "name": f"class {i}", "area": 0.1} for i in range(1, 10)]
        assert visit.page.evaluate(LEGEND, [[{"segmentation": {"regions": many}}], classes])[-1] == "and 3 more"
        one_after_the_other = [{"segmentation": {"regions": [region]}} for region in regions]
        assert visit.page.evaluate(LEGEND, [one_after_the_other, classes]) == ["class 950 %"], "the newest at once"
