"""Every Python block of README.md runs, each on its own, on every device that works here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gpugrad as gg

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
#: what each prints
PRINTED = [
    r"tensor\(\[\[.*grad_fn",
    r"^$",
    r"^$",
    r"^tensor\(\[\[-0\.0331, -0\.0496\],.*\nSize\(\[5, 3\]\)\ntensor\(\[ 0\.0000,  1\.3818,  0\.0770, -2\.8289\]",
    r"^-0\.00402\d* 0\.00268\d*\ngraph of 6 boxes and 5 arrows\n",
    r"^operation .*matmul \(backward\) .* ms of work in .* ms; measured: copy ",
    r"^step, program \d on .*fused over",
]


def test_there_are_as_many_as_expected():
    assert len(BLOCKS) == len(PRINTED)


@pytest.mark.parametrize("number", range(len(PRINTED)))
def test_it_runs(number, device, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    gg.manual_seed(0)
    default = gg.get_default_device()
    names: dict[str, object] = {}
    try:
        gg.set_default_device(device)
        exec(BLOCKS[number].replace('"opencl"', repr(str(device))), names)
    finally:
        gg.set_default_device(default)
    assert re.search(PRINTED[number], capsys.readouterr().out.replace("gpugrad.", ""), re.S)
    if number == 0:
        assert gg.allclose(names["model"](names["x"]), names["y"], atol=0.1)
    if number == 2:
        assert names["loss"].item() < 0.1
        saved = gg.load(tmp_path / "model.safetensors", device=device)
        assert all(gg.equal(saved[key], value) for key, value in names["model"].state_dict().items())


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert not [link for link in links if not link.startswith("http") and not (README.parent / link).exists()]
