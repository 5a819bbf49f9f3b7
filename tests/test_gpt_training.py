"""Training a GPT: what the example writes, and that a run that was stopped or killed ends with the same bits."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from tests.gpt_runs import EXAMPLES, PNG, QUICK, SMALL, WORDS, bits, interrupted_after, train

pytestmark = pytest.mark.usefixtures("gpt_examples")

# -- training ------------------------------------------------------------------------


def test_training_learns_and_writes_its_folder(device, capsys):
    arguments = [*SMALL, "--steps", 60, "--lr", "1e-2", "--warmup", 5, "--sample-every", 30, "--eval-every", 30]
    assert train("--text", "text.txt", "--device", device, *arguments, "--sample-length", 25, "--out", "run") == 0
    output = capsys.readouterr().out
    assert re.search(r"GPT with [\d,]+ parameters, 2,592 tokens of text \(14 kinds\), on ", output)
    assert output.count("validation loss") == 4 and output.count("  | ") >= 2
    assert re.search(r"loss [\d.]+, norm [\d.]+, lr [\de.-]+, ms/step [\d.]+, tokens/s [\d,]+", output)
    assert sorted(os.listdir("run")) == [
        "checkpoint.safetensors", "loss.png", "model.safetensors", "results.json", "settings.json",
    ]  # fmt: skip
    assert Path("run/loss.png").read_bytes().startswith(PNG)
    results = json.loads(Path("run/results.json").read_text())
    assert len(results["losses"]) == 60 and [step for step, _ in results["validation"]] == [0, 30, 60]
    assert results["losses"][0] == pytest.approx(np.log(14), rel=0.02)
    assert results["validation_loss"] < 1.5 < 2.5 < results["validation"][0][1]
    settings = json.loads(Path("run/settings.json").read_text())
    assert settings["model"]["channels"] == 16 and settings["device"] == str(gg.device(device))
    assert settings["fingerprint"] and settings["lr"] == 1e-2


def test_the_llama_manner_trains(capsys):
    arguments = [*QUICK, "--rope", "--rmsnorm", "--swiglu", "--kv-heads", 1, "--no-bias", "--dropout", "0.1"]
    assert (
        train("--text", "text.txt", "--device", "cpu", *arguments, "--steps", 40, "--lr", "2e-2", "--out", "run") == 0
    )
    names = gg.load("run/model.safetensors", device="cpu").keys()
    assert "blocks.0.feed.gate_proj.weight" in names and not any("bias" in n or "positions" in n for n in names)
    results = json.loads(Path("run/results.json").read_text())
    assert results["validation_loss"] < results["validation"][0][1] - 0.5


def test_mfu_is_measured(capsys, monkeypatch):
    asked = []

    def peak(device, dtype):
        asked.append((device.type, dtype))
        return gg.profiler.Peak(1e9, 1e12)

    monkeypatch.setattr(gg.profiler, "peak", peak)
    arguments = [a for a in QUICK if a != "--no-mfu"]
    assert train("--text", "text.txt", "--device", "cpu", *arguments, "--steps", 10, "--out", "run") == 0
    line = capsys.readouterr().out.split("step 10/10: ")[1]
    rate, share = re.search(r"tokens/s ([\d,]+), MFU ([\d.]+)%", line).groups()
    results = gg.load("run/checkpoint.safetensors")
    from gpt.model import GPT, Config

    flops = GPT(Config.from_dict(results["config"])).flops_per_token()
    assert float(share) == pytest.approx(100 * flops * int(rate.replace(",", "")) / 1e12, abs=0.06)
    assert set(asked) == {("cpu", gg.float32)}


def test_training_on_token_files(tokenizer, capsys):
    from gpt.text import Pieces

    tokens = Pieces.from_file(tokenizer).encode(WORDS * 80)
    for name, part in (("a.bin", tokens[:600]), ("b.bin", tokens[600:])):
        part.astype("<u2").tofile(name)
    arguments = [*QUICK, "--device", "cpu", "--steps", 5, "--out", "run"]
    assert train("--tokens", "a.bin", "b.bin", "--vocabulary", 300, *arguments) == 0
    assert "600 tokens of a (300 kinds)" in capsys.readouterr().out
    assert gg.load("run/model.safetensors", device="cpu")["tokens.weight"].shape == (300, 16)
    assert train("--weights", "run", "--device", "cpu", program="sample_gpt") == 1
    assert "brings no tokenizer; give --tokenizer" in capsys.readouterr().err
    sample = ["--weights", "run", "--tokenizer", tokenizer, "--prompt", "the", "--length", "5", "--device", "cpu"]
    assert train(*sample, program="sample_gpt") == 0
    assert train("--tokens", "a.bin", "--vocabulary", 100, *arguments) == 1
    assert "and the vocabulary has 100; give a larger --vocabulary" in capsys.readouterr().err


def test_event_files_for_tensorboard(capsys):
    pytest.importorskip("tensorboardX", reason="tensorboardX (extra 'examples') is not installed")
    from tensorboardX.proto.event_pb2 import Event

    arguments = [*QUICK, "--device", "cpu", "--steps", 20, "--out", "run", "--tensorboard", "--report-every", 5]
    assert train("--text", "text.txt", *arguments) == 0
    (path,) = Path("run/tensorboard").iterdir()
    data, found = path.read_bytes(), {}
    while data:  # a record: its length, a check of that, the event, a check of that
        length = int.from_bytes(data[:8], "little")
        for value in Event.FromString(data[12 : 12 + length]).summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
        data = data[16 + length :]
    results = json.loads(Path("run/results.json").read_text())
    assert len(found["loss"]) == 4 and found["loss"][-1] == pytest.approx(np.mean(results["losses"][-5:]), rel=1e-4)
    assert found["validation_loss"] == pytest.approx([loss for _, loss in results["validation"]], rel=1e-4)
    assert len(found["norm"]) == len(found["lr"]) == 4


# -- going on ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--compile"],
        ["--dtype", "float16"],
        ["--dtype", "bfloat16", "--accumulate", "2", "--checkpoint-activations"],
    ],
    ids=["plain", "compiled", "float16", "bfloat16"],
)
def test_ctrl_c_then_resume_ends_with_the_same_bits(options, device, monkeypatch, capsys):
    if "--compile" in options and device == "pretend":
        pytest.skip("the compiled step is tried on real devices")
    arguments = ["--text", "text.txt", *QUICK, "--steps", 24, "--eval-every", 6, "--dropout", "0.1", *options]
    assert train("--device", device, *arguments, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        interrupted_after(11, patch)
        assert train("--device", device, *arguments, "--out", "runs/gpt-broken") == 130
    assert "stopped after 12 steps" in capsys.readouterr().out
    assert not Path("runs/gpt-broken/model.safetensors").exists()
    assert train("--device", device, "--no-mfu", "--resume") == 0  # finds the newest by itself
    assert bits("runs/gpt-broken/model.safetensors") == bits("whole/model.safetensors")
    whole, broken = (json.loads(Path(run, "results.json").read_text()) for run in ("whole", "runs/gpt-broken"))
    assert broken["losses"] == whole["losses"] and broken["validation"] == whole["validation"]


def start(device, *arguments):
    command = [sys.executable, str(EXAMPLES / "train_gpt.py"), "--device", device, *map(str, arguments)]
    root = str(EXAMPLES.parent)
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_twenty_kills_at_random_times_change_no_bit(device):
    if device == "pretend":
        pytest.skip("it is registered in this process alone")
    text = ["--text", "text.txt", *QUICK, "--layers", 1, "--steps", 200, "--save-every", 5, "--eval-every", 50]
    whole = start(device, *text, "--out", "whole")
    assert whole.stdout.readline().startswith("GPT with")  # what comes before is not training
    began = time.perf_counter()
    assert any(line.startswith("step 200/200") for line in whole.stdout), whole.stderr.read()
    duration = time.perf_counter() - began
    assert whole.wait(120) == 0, whole.stderr.read()
    for pipe in (whole.stdout, whole.stderr):
        pipe.close()

    chance = random.Random(20)
    kills, chains, reached, position = 0, 0, [], 0
    while True:
        run = Path(f"broken{chains}")
        given = ["--resume", run, "--no-mfu"] if (run / "checkpoint.safetensors").exists() else [*text, "--out", run]
        process = start(device, *given)
        process.stdout.readline()
        if kills < 20 and position < 200:  # at the end there are only pictures left to make
            try:
                process.wait(chance.uniform(0, duration / 2))
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
        status = process.wait(120)
        error = process.stderr.read()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
        if status == -signal.SIGKILL:
            if (run / "checkpoint.safetensors").exists():
                position = gg.load(run / "checkpoint.safetensors", device="cpu")["position"]["step"]
                reached.append(position)
            continue
        assert status == 0, error
        assert bits(run / "model.safetensors") == bits("whole/model.safetensors")
        chains, position = chains + 1, 0
        if kills >= 20:
            break
    assert len(set(reached)) >= 6, reached  # it was killed in different places


def test_a_resumed_run_keeps_its_settings_and_text(capsys):
    arguments = [*QUICK, "--device", "cpu", "--steps", 6]
    assert train("--text", "text.txt", *arguments, "--out", "run") == 0
    before = bits("run/model.safetensors")
    assert train("--device", "cpu", "--resume", "run", "--no-mfu") == 0
    assert bits("run/model.safetensors") == before
    assert train("--device", "cpu", "--resume", "run/checkpoint.safetensors", "--steps", 9, "--no-mfu") == 0
    assert len(json.loads(Path("run/results.json").read_text())["losses"]) == 9
    capsys.readouterr()
    assert train("--device", "cpu", "--resume", "run", "--lr", "0.5", "--rope") == 1
    assert "--resume keeps the run's settings; leave out --rope, --lr" in capsys.readouterr().err
    Path("text.txt").write_text("something else " * 60)
    assert train("--device", "cpu", "--resume", "run") == 1
    assert "text is not the text that the run began with" in capsys.readouterr().err
    gg.save({"model": {}}, "other.safetensors")
    assert train("--device", "cpu", "--resume", "other.safetensors") == 1
    assert "other.safetensors is no checkpoint of kind gpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--text", "text.txt", "--context", "4000"], "for training there are 2592 tokens, and a context of 4000"),
        (["--text", "text.txt", "--heads", "3"], "128 channels cannot be shared out among 3 heads"),
        (["--text", "text.txt", "--tokens", "text.txt"], "give one of them"),
        (["--text", "text.txt", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--resume"], "--resume: there is no checkpoint of kind gpt under runs/"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, capsys):
    given = [] if "--device" in arguments else ["--device", "cpu"]
    assert train(*given, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("train_gpt: ")
