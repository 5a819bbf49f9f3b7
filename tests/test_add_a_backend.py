"""The backend that docs/add_a_backend.md writes, made of the page's own code blocks, under a good part of the suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: what is run on it; the slow second gradients of table rows are the CPU's alone anyway
SELECTIONS = {
    "ops": ["tests/test_ops.py", "-k", "forward or dtypes or gradient_on_device or non_contiguous"],
    "compiled": ["tests/test_compile_ops.py"],
    "random": ["tests/test_random.py"],
    "indexing and places": ["tests/test_indexing.py", "tests/test_inplace.py"],
}


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The folder with the page's module."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "add_a_backend.md").read_text(), re.DOTALL | re.M)
    folder = tmp_path_factory.mktemp("page")
    (folder / "shoebox.py").write_text("\n\n".join(blocks))
    return folder


def run(folder, *arguments):
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=400
    )


def test_the_page_runs(module):
    done = run(module, "-W", "error", "-c", "import shoebox; print('works')")
    assert done.stdout == "works\n", done.stderr


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_suite_on_it(module, selection):
    done = run(
        module, "-m", "pytest", "-q", "-p", "shoebox", "-p", "no:cacheprovider", "--device", "shoebox", "--tb=line",
        "-x", *SELECTIONS[selection],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed > {"ops": 2000, "compiled": 20}.get(selection, 50), done.stdout[-300:]
