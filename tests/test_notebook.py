"""The notebook in docs runs, against a real server and a real video."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.running import Server, serving, street_video

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs(tmp_path: Path) -> None:
    (tmp_path / "street.mp4").symlink_to(street_video())
    with serving("--default-model", "street-detect") as server:
        outputs = run(server, tmp_path)
    shown = [output for cell in outputs for output in cell if "data" in output]
    texts = [output["data"].get("text/plain", "") for output in shown]
    assert any("[<frame 0 of client-" in text for text in texts)
    [page] = [output["data"]["text/html"] for output in shown if "<img" in output["data"].get("text/html", "")]
    assert "person #" in page
    assert any("propagated" in text and "Name: latency" in text for text in texts)


def run(server: Server, folder: Path) -> list[list[dict[str, dict[str, str]]]]:
    """Run all cells of the notebook, and return the outputs of each."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the notebook's outputs"
    for cell in notebook.cells:
        cell.source = cell.source.replace("http://127.0.0.1:8080", server.url)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
