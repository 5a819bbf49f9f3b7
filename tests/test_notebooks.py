"""Every notebook of the examples runs from top to bottom, quietly, and shows what it promises."""

import asyncio
import base64
import importlib.util
import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
GRAPHVIZ = importlib.util.find_spec("graphviz") is not None and shutil.which("dot") is not None
#: how many pictures each shows: PNG by matplotlib, SVG by gpugrad.viz where Graphviz is installed
PICTURES = {"devices": (0, 0), "graphs": (0, 5), "mnist": (3, 0), "moons": (3, 0), "values": (0, 2), "xor": (1, 0)}


def test_each_is_here():
    assert {path.stem for path in NOTEBOOKS} == set(PICTURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_stored_without_results(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def run(path, monkeypatch):
    """The executed notebook. Its kernel finds no network, and prints warnings as errors."""
    nbclient = pytest.importorskip("nbclient", reason="notebooks run where the extra 'test' is installed")
    nbformat = pytest.importorskip("nbformat", reason="notebooks run where the extra 'test' is installed")
    pytest.importorskip("ipykernel", reason="notebooks run where the extra 'test' is installed")
    pytest.importorskip("matplotlib", reason="notebooks draw with the extra 'examples'")
    pytest.importorskip("sklearn", reason="notebooks take data from the extra 'examples'")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a port where nobody answers
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    with asyncio.Runner() as runner:  # a loop of this test's own, closed when it ends
        runner.run(client.async_execute())
    return notebook


def shown(notebook):
    """What the cells show, by MIME type. Nothing may be written to stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    return [o.data for o in outputs if o.output_type in ("display_data", "execute_result")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch):
    results = shown(run(path, monkeypatch))
    png = [base64.b64decode(data["image/png"]) for data in results if "image/png" in data]
    svg = [data["image/svg+xml"] for data in results if "image/svg+xml" in data]
    plots, graphs = PICTURES[path.stem]
    assert (len(png), len(svg)) == (plots, graphs if GRAPHVIZ else 0)
    assert all(picture.startswith(b"\x89PNG\r\n") and len(picture) > 3000 for picture in png)
    assert all("<svg" in picture and "</svg>" in picture for picture in svg)


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if PICTURES[p.stem][1]], ids=lambda path: path.stem)
def test_graphs_are_text_without_graphviz(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    texts = [data["text/plain"] for data in shown(run(path, monkeypatch)) if "image/svg+xml" not in data]
    graphs = [text for text in texts if text.startswith("graph of ")]
    assert len(graphs) == PICTURES[path.stem][1] and all("pictures need " in text for text in graphs)
