import re

from tests.e2e.dashboard.browsing import Visit, wait_until
from tests.e2e.running import ROOT, Server


def test_the_example_in_the_readme_runs(visit: Visit, server: Server) -> None:
    readme = (ROOT / "clients" / "web" / "README.md").read_text()
    [code] = re.findall(r"^```js\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    for written, here in (
        ("./keywarp.js", "/dashboard/vendor/keywarp.js"),
        ("https://keywarp.example", server.url),
        ("street", "tiny"),
    ):
        assert code.count(written) == 1
        code = code.replace(written, here)
    page = visit.page
    printed: list[str] = []
    page.on("console", lambda message: printed.append(message.text))
    page.route("**/dashboard/example.js", lambda route: route.fulfill(body=code, content_type="text/javascript"))
    page.evaluate("() => { import('/dashboard/example.js') }")
    wait_until(
        page,
        lambda: any(re.match(r"\d+ propagated \d .*green", line) for line in printed),
        "a propagated result in the console",
    )
