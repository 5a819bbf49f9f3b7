"""What the tests of the GPT examples share."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PNG = b"\x89PNG\r\n\x1a\n"
WORDS = "the cat sat on the mat and the dog ate the rat. "
SMALL = ["--layers", "2", "--heads", "2", "--channels", "16", "--context", "8", "--batch-size", "4", "--no-mfu"]
QUICK = [*SMALL, "--warmup", "3", "--sample-every", "0"]
LLAMA = {"rope": True, "rmsnorm": True, "swiglu": True, "kv_heads": 2, "bias": False}


@pytest.fixture
def gpt_examples(monkeypatch, tmp_path):
    """The examples can be imported, and the working folder is empty but for a text."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(WORDS * 60)


def bits(path):
    """The tensors of a safetensors file as bytes."""
    return {key: value.numpy().tobytes() for key, value in gg.load(path, device="cpu").items()}


def small_config(**changed):
    from gpt.model import Config

    return replace(Config(layers=2, heads=4, channels=32, context=16, vocabulary=19), **changed)


def small_model(device="cpu", **changed):
    from gpt.model import GPT

    gg.manual_seed(1)
    return GPT(small_config(**changed)).to(device)


def settings_of(**changed):
    from gpt.training import DEFAULTS

    return {**DEFAULTS, "batch_size": 3, **changed}


def batches(device, count, shape=(1, 3), context=16, vocabulary=19):
    rng = np.random.default_rng(5)
    for _ in range(count):
        windows = rng.integers(0, vocabulary, (*shape, context + 1))
        yield tuple(gg.from_numpy(np.ascontiguousarray(w)).to(device) for w in (windows[..., :-1], windows[..., 1:]))


def stepped(device, count, made=None, accumulate=1, **changed):
    """Losses of so many steps, and the weights after them."""
    from gpt.step import Step, make_optimizer

    model = made or small_model(device)
    settings = settings_of(**changed)
    step = Step(model, make_optimizer(model, settings), gg.device(device), settings)
    losses = [step(x, y)[0].item() for x, y in batches(device, count, (accumulate, 3))]
    return losses, {name: value.cpu().numpy() for name, value in model.state_dict().items()}, step


def train(*arguments, program="train_gpt"):
    return __import__(program).main([str(a) for a in arguments])


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level tokenizer of a few merges, as tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers (extra 'examples') is not installed")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([WORDS] * 5, vocab_size=280, show_progress=False)
    made.save("tokenizer.json")
    return "tokenizer.json"


def interrupted_after(steps, monkeypatch):
    """Ctrl-C comes in the step after so many."""
    import gpt.training

    rate, calls = gpt.training.learning_rate, []

    def interrupting(*position):
        calls.append(position)
        if len(calls) == steps + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return rate(*position)

    monkeypatch.setattr(gpt.training, "learning_rate", interrupting)
