"""The examples as a newcomer runs them: what they reach, write, survive and complain of."""

import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from gpugrad import datasets

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Import an example by name, in an empty working folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    return __import__


@pytest.fixture(scope="module")
def little(tmp_path_factory):
    """A folder with 12x12 images of bright bars, in MNIST's format: quickly learnt."""
    folder = tmp_path_factory.mktemp("little")
    rng = np.random.default_rng(0)
    for name, n in zip(datasets.MNIST_SHA256, (240, 240, 60, 60), strict=True):
        if "images" in name:
            labels = rng.integers(0, 10, n)
            array = rng.integers(0, 60, (n, 12, 12)).astype(np.uint8)
            array[np.arange(n), 1 + labels] = 255
        else:
            array = labels.astype(np.uint8)
        header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (folder / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def bits(path):
    """The tensors of a safetensors file as bytes."""
    return {key: value.numpy().tobytes() for key, value in gg.load(path, device="cpu").items()}


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_training_learns_and_writes_its_folder(model, device, little, example, tmp_path, capsys):
    main = example("train_mnist").main
    arguments = ["--model", model, "--device", str(device), "--data", str(little), "--out", "run"]
    assert main([*arguments, "--epochs", "6", "--batch-size", "24"]) == 0
    output = capsys.readouterr().out
    assert output.count("test accuracy") == 6
    run = tmp_path / "run"
    for name in ("curves.png", "confusion.png", "misread.png"):
        assert (run / name).read_bytes().startswith(PNG)
    settings = json.loads((run / "settings.json").read_text())
    assert settings["model"] == model and settings["epochs"] == 6 and settings["seed"] == 0
    results = json.loads((run / "results.json").read_text())
    assert results["test_accuracy"] > 0.9
    losses = results["history"]["loss"]
    assert losses[-1] < losses[0] / 2
    weights = gg.load(run / "model.safetensors")
    assert sum(t.numel() for t in weights.values()) > 1000
    assert sorted(os.listdir(run)) == [
        "checkpoint.safetensors", "confusion.png", "curves.png", "misread.png", "model.safetensors", "results.json",
        "settings.json",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_same_seed_gives_the_same_initial_weights_on_every_device(model, device, example):
    build = example("train_mnist").build_model

    def weights(where):
        gg.manual_seed(5)
        with gg.device(where):
            return {key: value.cpu().numpy().tobytes() for key, value in build(model, 28, 28, 10).state_dict().items()}

    assert weights(device) == weights("cpu")


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 25])
def test_ctrl_c_then_resume_ends_with_the_same_bits(steps, little, example, tmp_path, capsys, monkeypatch):
    module = example("train_mnist")
    arguments = ["--model", "mlp", "--device", "cpu", "--data", str(little), "--epochs", "3", "--batch-size", "24"]
    assert module.main([*arguments, "--out", "whole"]) == 0

    rate, calls = module.learning_rate, []

    def interrupting(*position):
        calls.append(position)
        if len(calls) == steps + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return rate(*position)

    with monkeypatch.context() as patch:
        patch.setattr(module, "learning_rate", interrupting)
        assert module.main([*arguments, "--out", "runs/broken"]) == 130
    assert "--resume runs/broken" in capsys.readouterr().out
    assert not (tmp_path / "runs" / "broken" / "model.safetensors").exists()

    other = Path("runs/later/checkpoint.safetensors")
    other.parent.mkdir()
    gg.save({"kind": "gpt", "settings": {}}, other, metadata={"kind": "gpt"})
    assert module.main(["--device", "cpu", "--resume"]) == 0  # finds the newest of its own by itself
    assert module.main(["--device", "cpu", "--resume", str(other)]) == 1
    assert f"{other} is no checkpoint of kind mnist but of gpt" in capsys.readouterr().err
    assert bits("runs/broken/model.safetensors") == bits("whole/model.safetensors")
    whole, broken = (json.loads(Path(run, "results.json").read_text()) for run in ("whole", "runs/broken"))
    assert broken["history"]["loss"] == whole["history"]["loss"]
    assert broken["history"]["accuracy"] == whole["history"]["accuracy"]


def test_resume_after_the_end_trains_further_or_not_at_all(little, example, capsys):
    main = example("train_mnist").main
    arguments = ["--model", "mlp", "--device", "cpu", "--data", str(little), "--out", "run"]
    assert main([*arguments, "--epochs", "1"]) == 0
    before = bits("run/model.safetensors")
    assert main(["--device", "cpu", "--resume", "run"]) == 0
    assert bits("run/model.safetensors") == before
    assert main(["--device", "cpu", "--resume", "run/checkpoint.safetensors", "--epochs", "2"]) == 0
    assert len(json.loads(Path("run/results.json").read_text())["history"]["accuracy"]) == 2


def test_a_kill_leaves_a_usable_checkpoint(little, tmp_path):
    command = [sys.executable, EXAMPLES / "train_mnist.py", "--model", "mlp", "--device", "cpu", "--data", little]
    process = subprocess.Popen(
        [*command, "--epochs", "100000", "--out", "run"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch 3/"):
            process.kill()
            break
    process.wait(60)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert gg.load(tmp_path / "run" / "checkpoint.safetensors")["position"]["epoch"] >= 2


# -- data ------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "urlopen", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GPUGRAD_DATA", raising=False)


def test_auto_falls_back_to_the_digits_and_says_so(offline, example, capsys):
    main = example("train_mnist").main
    assert main(["--model", "mlp", "--device", "cpu", "--out", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("MNIST is not in ")
    assert lines[0].endswith("; training on scikit-learn's 1,797 scanned digits instead")
    assert json.loads(Path("run/results.json").read_text())["test_accuracy"] >= 0.97
    assert json.loads(Path("run/settings.json").read_text())["data"] == "digits"


def test_asking_for_mnist_without_it_is_an_error(offline, example, capsys, tmp_path):
    assert example("train_mnist").main(["--data", "mnist", "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("train_mnist: MNIST is not in ") and message.count("\n") == 1
    assert str(tmp_path / "cache" / "gpugrad" / "mnist") in message
    assert all(f"{name}.gz" in message for name in datasets.MNIST_SHA256)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "MNIST is not in nowhere: put the files"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--device", "cpu:3"], "device 'cpu:3' is absent"),
        (["--epochs", "0"], "--epochs must be at least 1, not 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--batch-size", "9999", "--data", "digits"], "--batch-size 9999 is more than the 1438 images"),
        (["--resume"], "--resume: there is no checkpoint of kind mnist under runs/"),
        (["--resume", "nowhere"], "--resume: nowhere does not exist"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, example, capsys):
    given = [] if "--device" in arguments else ["--device", "cpu"]
    assert example("train_mnist").main([*given, *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_damaged_checkpoint_is_named(little, example, capsys):
    main = example("train_mnist").main
    assert main(["--model", "mlp", "--device", "cpu", "--data", str(little), "--epochs", "1", "--out", "run"]) == 0
    checkpoint = Path("run/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-7])
    assert main(["--device", "cpu", "--resume", "run"]) == 1
    assert "run/checkpoint.safetensors is not a complete safetensors file" in capsys.readouterr().err


def test_resume_refuses_other_settings(little, example, capsys):
    main = example("train_mnist").main
    assert main(["--model", "mlp", "--device", "cpu", "--data", str(little), "--epochs", "1", "--out", "run"]) == 0
    assert main(["--device", "cpu", "--resume", "run", "--model", "cnn", "--seed", "3"]) == 1
    assert "--resume keeps the run's settings; leave out --model, --seed" in capsys.readouterr().err


# -- the others --------------------------------------------------------------------


def test_moons_are_separated_completely(device, example, capsys, tmp_path):
    assert example("train_moons").main(["--device", str(device), "--out", "run"]) == 0
    assert "accuracy 100.0%" in capsys.readouterr().out.splitlines()[-2]
    assert (tmp_path / "run" / "boundary.png").read_bytes().startswith(PNG)


def test_moons_are_separated_by_single_numbers(example, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no Graphviz
    main = example("moons_of_values").main
    assert main(["--points", "30", "--hidden", "6", "6", "--steps", "50", "--out", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "67 parameters, 30 points" and float(lines[-3].split("accuracy ")[1].rstrip("%")) > 85
    assert "graphviz" in lines[-2] and lines[-1].endswith("neuron.dot")
    assert (tmp_path / "run" / "boundary.png").read_bytes().startswith(PNG)
    drawn = (tmp_path / "run" / "neuron.dot").read_text()
    assert "digraph" in drawn and "ReLU" in drawn and "w1" in drawn


def test_a_neuron_is_drawn_where_graphviz_is(example, capsys, tmp_path):
    pytest.importorskip("graphviz", reason="the Python package graphviz (extra 'viz') is not installed")
    if shutil.which("dot") is None:
        pytest.skip("Graphviz's program dot is not installed")
    main = example("moons_of_values").main
    assert main(["--points", "4", "--hidden", "2", "--steps", "1", "--out", "run"]) == 0
    drawn = (tmp_path / "run" / "neuron.svg").read_text()
    assert "<svg" in drawn and ">ReLU<" in drawn and ">w1<" in drawn


def test_xor_runs_from_anywhere(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "xor.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    answers = [float(line.split("=")[1]) for line in done.stdout.splitlines() if "xor" in line]
    assert [round(a) for a in answers] == [0, 1, 1, 0]
    assert np.allclose(answers, [0, 1, 1, 0], atol=0.1)
