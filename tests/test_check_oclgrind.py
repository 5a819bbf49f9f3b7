"""``tools/check_oclgrind.py`` says what is wrong with a kernel, and what it was not shown."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.poison import WORD

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "check_oclgrind.py"
PROGRAM = """
from tests import launches, poison
poison.configure()
launches.configure()
import gpugrad as gg
x = gg.rand(7, 300, device="opencl")
assert abs(x.sum(1).cpu() - x.cpu().sum(1)).max().item() < 1e-3
launches.finish()
"""


@pytest.fixture(scope="module")
def recorded(request, tmp_path_factory):
    """(sources, launches) of a sum over rows, done with the launch shapes of GPUs."""
    if shutil.which("oclgrind") is None:
        pytest.skip("needs oclgrind")
    if not {"opencl", "all"} & set(request.config.getoption("--device").split(",")):
        pytest.skip("needs OpenCL")
    folder = tmp_path_factory.mktemp("launches")
    env = os.environ | {"GPUGRAD_TEST_SHAPES": "gpu", "GPUGRAD_TEST_LAUNCHES": str(folder)}
    found = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True)
    if "no OpenCL device was found" in found.stderr:
        pytest.skip("needs an OpenCL device")
    assert found.returncode == 0, found.stderr
    (path,) = folder.glob("launches-*.pickle")
    with open(path, "rb") as file:
        return pickle.load(file)


def the_sum(record):
    """The digest of its source, and its launch."""
    return next((key, found) for key, found in record[1].items() if key[1] == "gg_reduce_sum_f32_row")


def check(folder, record, *options):
    """What the tool prints of a record, and whether it ends well."""
    with open(folder / "launches-1.pickle", "wb") as file:
        pickle.dump(record, file)
    command = [sys.executable, str(TOOL), str(folder), "--jobs", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


def altered(record, source=lambda text: text, args=lambda args: args):
    """A record of the sum alone, changed."""
    key, (cost, groups, given) = the_sum(record)
    text, options = record[0][key[0]]
    assert source(text) != text or args(given) is not given
    return {key[0]: (source(text), options)}, {key: (cost, groups, args(given))}


def test_nothing_is_said_of_what_is_right_and_planted_faults_are_named(recorded, tmp_path):
    text, well = check(tmp_path, recorded, "-k", "gg_")
    assert well, text
    assert re.search(r"[1-9]\d* launches under oclgrind in .* 0 with findings", text)


def without_barriers(text):
    return re.sub(r"(#define BARRIER)\b.*", r"\1", text)


def cut(args):
    return [args[0][:-4].copy(), *args[1:]]


def unwritten(args):
    x = args[0].copy()
    x.view(np.uint32)[299] = WORD
    return [x, *args[1:]]


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"source": without_barriers}, "data race at local memory"),
        ({"args": cut}, "Invalid read of size"),
        ({"args": unwritten}, "ninitialized value"),
    ],
    ids=["no barrier", "too small a buffer", "an unwritten word"],
)
def test_faults_in_a_kernel_are_named(recorded, tmp_path, change, sign):
    text, well = check(tmp_path, altered(recorded, **change), "-k", "gg_")
    assert not well and sign in text and "Kernel: gg_reduce_sum_f32_row" in text, text


def test_kernels_that_are_not_in_the_record_are_named(recorded, tmp_path):
    text, well = check(tmp_path, recorded)
    assert not well and re.search("never launched: .*sort.c: _merge", text), text
    assert "reduce.c: _row;" not in text and "attention_mma" not in text


def test_kernels_only_seen_in_large_launches_are_named(recorded, tmp_path):
    sources, seen = recorded
    key, (cost, groups, _) = the_sum(recorded)
    others = {k: found for k, found in seen.items() if k[:3] != key[:3]}
    assert others
    text, well = check(tmp_path, (sources, others | {key: (cost, groups, [])}))
    assert not well and re.search("only in launches too large for this: .*gg_reduce_sum_f32_row in groups", text), text


def test_launches_that_there_was_no_time_for_are_counted(recorded, tmp_path):
    text, well = check(tmp_path, recorded, "-k", "gg_", "--seconds", "0")
    assert well and re.search(r"no time for [1-9]\d* launches: .*[1-9]\d* of reduce \(GPU shapes\)", text), text
    assert re.search(r"^0 launches under oclgrind", text, re.MULTILINE)


def test_an_empty_record_is_an_error(recorded, tmp_path):
    text, well = check(tmp_path, ({}, {}))
    assert not well and "the record is empty" in text
