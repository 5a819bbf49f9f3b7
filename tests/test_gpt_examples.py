"""Training, sampling and fine-tuning a GPT: what the examples compute, write, survive and complain of."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
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


@pytest.fixture(autouse=True)
def examples(monkeypatch, tmp_path):
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


# -- the model -------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, LLAMA], ids=["gpt2", "llama"])
def test_a_cache_changes_nothing(changed, device):
    from gpt.model import new_cache

    model = small_model(device, **changed).eval()
    index = gg.from_numpy(np.random.default_rng(0).integers(0, 19, (2, 16))).to(device)
    with gg.no_grad():
        whole = model(index)
        cache = new_cache(model.config, 2, device)
        parts = [model(index[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 13), (13, 16))]
    assert np.allclose(gg.cat(parts, 1).cpu().numpy(), whole.cpu().numpy(), atol=2e-6)
    with pytest.raises(ValueError, match="17 tokens are more than the context of 16"):
        model(index[:, :1], cache)


@pytest.mark.parametrize("changed", [{}, LLAMA], ids=["gpt2", "llama"])
def test_a_token_sees_only_those_before_it(changed):
    model = small_model(**changed).eval()
    index = gg.from_numpy(np.random.default_rng(0).integers(0, 19, (1, 16)))
    other = index.clone()
    other[0, 9] = (other[0, 9] + 1) % 19
    with gg.no_grad():
        a, b = model(index)[0].numpy(), model(other)[0].numpy()
    assert np.array_equal(a[:9], b[:9]) and (a[9:] != b[9:]).any(axis=-1).all()


def test_parameters_and_flops_are_those_of_gpt2():
    from gpt.model import GPT, SIZES

    def count(layers):
        return sum(p.numel() for p in GPT(replace(SIZES["gpt2"].config, layers=layers, vocabulary=1)).parameters())

    one, two = count(1), count(2)
    whole = one + 11 * (two - one) + 50256 * 768
    assert whole == 124_439_808  # as published
    # A small one counted by hand, without the positions, which are only added.
    model = small_model(layers=12, channels=48, context=32)
    weights = sum(p.numel() for p in model.parameters()) - 32 * 48
    assert model.flops_per_token() == 6 * weights + 12 * 12 * 48 * 32
    model.requires_grad_(False)
    assert model.flops_per_token() == 4 * weights + 12 * 12 * 48 * 32
    assert model.blocks[3].feed.down.weight.std().item() == pytest.approx(0.02 / 24**0.5, rel=0.05)


@pytest.mark.parametrize("changed", [{}, LLAMA, {"dropout": 0.3}], ids=["gpt2", "llama", "dropout"])
def test_checkpointing_gives_the_same_gradients(changed, device):
    def gradients(checkpointing):
        model = small_model(device, **changed)
        model.checkpointing = checkpointing
        ((x, y),) = batches(device, 1)
        gg.manual_seed(3)
        model.loss(x[0], y[0]).backward()
        return {name: p.grad.cpu().numpy() for name, p in model.named_parameters()}

    kept, again = gradients(False), gradients(True)
    assert all(np.array_equal(kept[name], again[name]) for name in kept)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 5}, "32 channels cannot be shared out among 5 heads"),
        ({"kv_heads": 3}, "4 heads cannot share 3 heads"),
        ({"heads": 32, "rope": True}, "a head has 1"),
    ],
)
def test_shapes_that_make_no_sense(changed, message):
    with pytest.raises(ValueError, match=message):
        small_config(**changed)


# -- a step ------------------------------------------------------------------------


def test_losses_on_each_device_are_those_of_the_cpu(device):
    here, there = stepped(device, 20)[0], stepped("cpu", 20)[0]
    assert np.allclose(here, there, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_compiled_step_is_one_program(dtype, device):
    eager, eager_weights, _ = stepped(device, 6, dtype=dtype)
    losses, compiled, step = stepped(device, 6, dtype=dtype, compile=True)
    assert len(step.compiled.traces) == 1 and "eagerly" not in step.compiled.explain()
    assert np.allclose(losses, eager, rtol=1e-5 if dtype == "float32" else 2e-2)
    name = "blocks.1.feed.up.weight"
    moved = eager_weights[name] - small_model().state_dict()[name].numpy()
    apart = np.linalg.norm(compiled[name] - eager_weights[name]) / np.linalg.norm(moved)
    assert apart < (1e-2 if dtype == "float32" else 0.3)


def test_a_compiled_step_with_checkpoints_is_one_program():
    eager = stepped("cpu", 4)[0]
    model = small_model()
    model.checkpointing = True
    losses, _, step = stepped("cpu", 4, model, compile=True)
    assert len(step.compiled.traces) == 1 and "eagerly" not in step.compiled.explain()
    assert np.allclose(losses, eager, rtol=1e-5)


def test_warming_up_leaves_no_trace():
    model = small_model(dropout=0.2)
    from gpt.step import Step, make_optimizer

    settings = settings_of(compile=True)
    optimizer = make_optimizer(model, settings)
    step = Step(model, optimizer, gg.device("cpu"), settings)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    random_before = gg.get_rng_state()
    ((x, y),) = batches("cpu", 1)
    step.warm_up(x, y)
    assert gg.get_rng_state() == random_before
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.state_dict().items())
    for state in optimizer.state.values():
        assert state["step"] == 0 and not state["exp_avg"].any() and not state["exp_avg_sq"].any()
    traces = len(step.compiled.traces)
    step(x, y)
    assert traces == 1 == len(step.compiled.traces)  # also the first step is a replay


def test_accumulated_gradients_are_those_of_the_whole(device):
    """A step of two batches of three is one of six."""
    from gpt.step import Step, make_optimizer

    ((x, y),) = batches(device, 1, (2, 3))
    results = []
    for a, b in ((x, y), (x.reshape(1, 6, 16), y.reshape(1, 6, 16))):
        model, settings = small_model(device), settings_of()
        loss, norm = Step(model, make_optimizer(model, settings), gg.device(device), settings)(a, b)
        results.append((loss.item(), norm.item()))
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_float16_skips_steps_that_overflow(device):
    model = small_model(device)
    before = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    from gpt.step import Step, make_optimizer

    settings = settings_of(dtype="float16")
    step = Step(model, make_optimizer(model, settings), gg.device(device), settings)
    step.scaler._scale = 2.0**100
    x, y = next(batches(device, 1))
    step(x, y)
    assert all(np.array_equal(v.cpu().numpy(), before[name]) for name, v in model.state_dict().items())
    assert step.scaler.get_scale() == 2.0**99
    step.scaler._scale = 2.0**12
    losses = [step(x, y)[0].item() for _ in range(8)]
    assert losses[-1] < losses[0] - 0.05 and np.isfinite(losses).all()


def test_only_matrices_decay():
    from gpt.step import make_optimizer

    matrices, others = make_optimizer(small_model(), settings_of()).param_groups
    assert {p.dim() for p in matrices["params"]} == {2} and matrices["weight_decay"] == 0.1
    assert {p.dim() for p in others["params"]} == {1} and others["weight_decay"] == 0.0


def test_the_learning_rate_rises_and_falls():
    from gpt.training import learning_rate

    settings = settings_of(steps=100, warmup=10, lr=1.0, min_lr=0.1)
    rates = [learning_rate(i, settings) for i in range(101)]
    assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) < 0)
    assert rates[10] == 1.0 and rates[100] == pytest.approx(0.1) and rates[55] == pytest.approx(0.55)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 2e-2)])
def test_pytorch_trains_to_the_same_losses(dtype, tolerance, torch):
    peer = pytest.importorskip("benchmarks.peers.train_gpt_torch")
    from gpt.text import Tokens

    tokens = Tokens.split(np.random.default_rng(0).integers(0, 19, 4000).astype(np.uint16))
    settings = settings_of(steps=12, warmup=4, dtype=dtype, accumulate=2)
    mine, _, my_weights = peer.train_ours(small_config(), tokens, settings, "cpu")
    theirs, _, their_weights = peer.train_torch(small_config(), tokens, settings)
    assert len(mine) == 12 and np.allclose(mine, theirs, rtol=tolerance)
    moved = my_weights["tokens.weight"] - peer.first_weights(small_config(), 0)["tokens.weight"]
    apart = my_weights["tokens.weight"] - their_weights["tokens.weight"]
    assert np.abs(moved).max() > 1e-3
    assert np.linalg.norm(apart) < (1e-3 if dtype == "float32" else 0.2) * np.linalg.norm(moved)


# -- text --------------------------------------------------------------------------


def test_characters_there_and_back():
    from gpt.text import Characters, alphabet_from_json

    alphabet = Characters("häuser\n€ 🙂")
    text = "äu€🙂\nr"
    assert alphabet.size == 10 and alphabet.decode(alphabet.encode(text).tolist()) == text
    again = alphabet_from_json(alphabet.as_json())
    assert np.array_equal(again.encode(text), alphabet.encode(text))
    with pytest.raises(ValueError, match=r"3 characters of the text are not among the 10 known, as '!z'"):
        alphabet.encode("h!z!")
    assert alphabet.encode("").shape == (0,)


def test_the_standard_library_is_text_and_the_same_each_time():
    from gpt.text import standard_library

    text = standard_library(300_000)
    assert len(text) > 250_000 and set(text) <= {"\n", *map(chr, range(32, 127))}
    assert "import" in text and text == standard_library(300_000)


def test_a_tokens_batch_is_a_function_of_seed_and_step():
    from gpt.text import Tokens

    tokens = Tokens.split(np.arange(1000, dtype=np.uint16))
    assert len(tokens.train) == 900 and len(tokens.validation) == 100
    x, y = tokens.batch(3, 7, (2, 5), 16)
    assert x.shape == y.shape == (2, 5, 16) and x.dtype == np.int64
    assert np.array_equal(y, x + 1) and y.max() < 900
    assert np.array_equal(tokens.batch(3, 7, (2, 5), 16)[0], x)
    assert not np.array_equal(tokens.batch(3, 8, (2, 5), 16)[0], x)
    assert not np.array_equal(tokens.batch(4, 7, (2, 5), 16)[0], x)
    starts = np.concatenate([tokens.batch(0, i, (64,), 16)[0][:, 0] for i in range(400)])
    assert starts.min() == 0 and starts.max() == 883  # the last window ends with the text


def test_evaluation_takes_each_window_once():
    from gpt.text import Tokens

    tokens = Tokens(np.arange(10), np.arange(500, dtype=np.uint16))
    parts = list(tokens.evaluation(4, 16))
    x = np.concatenate([p[0] for p in parts])
    assert np.array_equal(x.ravel(), np.arange(31 * 16)) and all(np.array_equal(p[1], p[0] + 1) for p in parts)
    few = np.concatenate([p[0] for p in tokens.evaluation(4, 16, most=2)])
    assert few.shape == (8, 16) and few[0, 0] == 0 and few[-1, 0] == 30 * 16 and len(set(few[:, 0])) == 8


def test_token_files_are_mapped(tmp_path):
    from gpt.text import Tokens, token_file

    np.arange(1000, dtype="<u2").tofile("tokens.bin")
    mapped = token_file("tokens.bin")
    assert isinstance(mapped, np.memmap) and len(mapped) == 1000
    split = Tokens.split(mapped)
    assert isinstance(split.train, np.memmap) and split.batch(0, 0, (2,), 8)[0].dtype == np.int64
    Path("odd.bin").write_bytes(b"abc")
    with pytest.raises(ValueError, match="odd.bin has 3 bytes"):
        token_file("odd.bin")


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level tokenizer of a few merges, as tokenizer.json."""
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers (extra 'examples') is not installed")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([WORDS] * 5, vocab_size=280, show_progress=False)
    made.save("tokenizer.json")
    return "tokenizer.json"


def test_text_appears_as_its_characters_become_certain(tokenizer):
    from gpt.sampling import pieces_of_text
    from gpt.text import Characters, Pieces

    alphabet = Pieces.from_file(tokenizer)
    text = "the cät 🙂 sat — the mat"
    tokens = alphabet.encode(text).tolist()
    pieces = list(pieces_of_text(alphabet, tokens))
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces) and len(pieces) > 8
    assert "".join(pieces_of_text(alphabet, tokens[5:], tokens[:5])) == text[len(alphabet.decode(tokens[:5])) :]
    cut = alphabet.encode("🙂").tolist()[:-1]  # ends within a character
    assert "".join(pieces_of_text(alphabet, cut)) == alphabet.decode(cut)
    letters = Characters(WORDS)
    assert list(pieces_of_text(letters, letters.encode("cat").tolist())) == ["c", "a", "t", ""]


# -- training ------------------------------------------------------------------------


def train(*arguments, program="train_gpt"):
    return __import__(program).main([str(a) for a in arguments])


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
    assert "other.safetensors is no checkpoint of a GPT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--text", "text.txt", "--context", "4000"], "for training there are 2592 tokens, and a context of 4000"),
        (["--text", "text.txt", "--heads", "3"], "128 channels cannot be shared out among 3 heads"),
        (["--text", "text.txt", "--tokens", "text.txt"], "give one of them"),
        (["--text", "text.txt", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--resume"], "--resume: there is no checkpoint under runs/"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, capsys):
    given = [] if "--device" in arguments else ["--device", "cpu"]
    assert train(*given, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("train_gpt: ")


# -- writing ---------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, LLAMA], ids=["gpt2", "llama"])
def test_sampling_with_the_cache_is_sampling_without(changed, device):
    """Also where the context, of 16, is full and its older half forgotten."""
    from gpt.sampling import generate

    model = small_model(device, **changed)
    with gg.no_grad():
        model.norm.weight.mul_(gg.linspace(-9, 9, 32, device=device))  # so that tokens differ in likelihood
    drawn = []
    for cached in (True, False):
        gg.manual_seed(4)
        drawn.append(list(generate(model, [3, 1, 4], 60, 0.9, 12, 0.95, cached=cached)))
        assert model.training
    assert drawn[0] == drawn[1] and len(drawn[0]) == 60 and len(set(drawn[0])) > 3
    greedy = [list(generate(model, [3], 30, 0, cached=cached)) for cached in (True, False)]
    assert greedy[0] == greedy[1]


def test_chances(device):
    from gpt.sampling import chances

    logits = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15]))
    tensor = gg.tensor(logits.astype(np.float32), device=device)

    def odds(**options):
        return chances(tensor, **options).cpu().numpy()

    assert np.allclose(odds(), [0.1, 0.4, 0.05, 0.3, 0.15], atol=1e-6)
    assert np.allclose(odds(top_k=2), [0, 4 / 7, 0, 3 / 7, 0], atol=1e-6)
    assert np.allclose(odds(top_k=9), odds(), atol=1e-6)
    assert np.allclose(odds(top_p=0.6), [0, 4 / 7, 0, 3 / 7, 0], atol=1e-6)  # 0.4 alone is not enough
    assert np.allclose(odds(top_p=0.01), [0, 1, 0, 0, 0], atol=1e-6)
    sharp = np.exp(logits / 0.5)
    assert np.allclose(odds(temperature=0.5), sharp / sharp.sum(), atol=1e-6)
    assert np.allclose(odds(top_k=3, top_p=0.8), np.array([0, 0.4, 0, 0.3, 0]) / 0.7, atol=1e-6)


def test_tokens_that_stand_for_nothing_are_not_drawn():
    from gpt.sampling import generate

    assert max(generate(small_model(), [0], 60, 3.0, known=4)) < 4


def test_sampling_from_a_run(device, capsys):
    assert train("--text", "text.txt", *QUICK, "--steps", 40, "--lr", "2e-2", "--device", device, "--out", "run") == 0
    capsys.readouterr()
    arguments = ["--weights", "run", "--device", device, "--length", 30, "--prompt", "the "]
    assert train(*arguments, program="sample_gpt") == 0
    first = capsys.readouterr()
    assert first.out.startswith("the ") and len(first.out) == 35 and "tokens in" in first.err
    assert train(*arguments, "--no-cache", program="sample_gpt") == 0
    assert capsys.readouterr().out == first.out
    assert train(*arguments, "--seed", 1, "--samples", 2, "--top-k", 3, "--top-p", "0.9", program="sample_gpt") == 0
    two = capsys.readouterr().out
    assert two.count("the ") >= 2 and "-" * 40 in two and first.out not in two


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere"], "nowhere"),
        (["--weights", "run", "--prompt", "THE"], "3 characters of the text are not among the 19 known, as 'EHT'"),
        (["--weights", "run", "--prompt", ""], "--prompt is empty"),
        (["--weights", "run", "--top-p", "0"], "--top-p is out of range"),
        (["--weights", "run", "--temperature", "-1"], "--temperature is out of range"),
        (["--weights", "other.safetensors"], "other.safetensors holds no GPT"),
    ],
)
def test_mistakes_in_sampling(arguments, message, capsys):
    from gpt.files import save_model
    from gpt.text import Characters

    Path("run").mkdir()
    save_model("run/model.safetensors", small_model(), Characters("abcdefghijklmnopqrs"))
    gg.save({"x": gg.ones(2)}, "other.safetensors")
    assert train(*arguments, "--device", "cpu", program="sample_gpt") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


# -- Hugging Face's GPT-2 ------------------------------------------------------------------


@pytest.fixture
def theirs(torch, tmp_path):
    """A small GPT-2 of theirs, random but for norms that are not 1 and biases that are not 0, saved in ``theirs/``."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason="transformers (extra 'parity') is not installed")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=53, n_positions=24, n_embd=48, n_layer=3, n_head=4, layer_norm_epsilon=3e-5, attn_pdrop=0.0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += 0.3 * torch.randn_like(p) if "ln" in name or "bias" in name else 0.05 * torch.randn_like(p)
    model.save_pretrained("theirs")
    return model


def test_logits_are_those_of_transformers(theirs, torch, device):
    from gpt.files import load_model

    model, alphabet = load_model("theirs", device)
    assert alphabet is None and model.config.heads == 4 and model.config.eps == 3e-5
    index = np.random.default_rng(0).integers(0, 53, (2, 24))
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(index)).logits.numpy()
    with gg.no_grad():
        got = model.eval()(gg.from_numpy(index).to(device)).cpu().numpy()
    assert np.abs(wanted).max() > 0.5
    assert np.allclose(got, wanted, atol=1e-4)


def test_transformers_reads_what_is_written_for_it(theirs, torch):
    import transformers
    from gpt.files import load_model, to_hugging_face
    from safetensors.numpy import save_file

    model, _ = load_model("theirs")
    tensors = {name: np.ascontiguousarray(value.numpy()) for name, value in to_hugging_face(model).items()}
    save_file(tensors, "theirs/model.safetensors", metadata={"format": "pt"})
    again = transformers.GPT2LMHeadModel.from_pretrained("theirs").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in theirs.state_dict().items())
    with pytest.raises(ValueError, match="is no GPT-2"):
        to_hugging_face(small_model(rope=True))


def test_sampling_hugging_faces_layout_with_its_tokenizer(theirs, tokenizer, torch, capsys):
    """With names in the older form, without prefix and with masks; the tokens are those that transformers takes."""
    import transformers
    from gpt.text import Pieces

    alphabet = Pieces.from_file(tokenizer)

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=alphabet.size, n_positions=32, n_embd=48, n_layer=2, n_head=3)
    model = transformers.GPT2LMHeadModel(config).eval()
    tensors = {name.removeprefix("transformer."): value for name, value in model.state_dict().items()}
    del tensors["lm_head.weight"]
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    from safetensors.torch import save_file

    Path("old").mkdir()
    save_file({name: value.contiguous() for name, value in tensors.items()}, "old/model.safetensors")
    config.save_pretrained("old")
    Path(tokenizer).rename("old/tokenizer.json")
    start = alphabet.encode("the cat").tolist()
    wanted = model.generate(torch.tensor([start]), max_new_tokens=12, do_sample=False, pad_token_id=0)[0].tolist()
    arguments = ["--weights", "old", "--device", "cpu", "--temperature", 0, "--length", 12, "--prompt", "the cat"]
    assert train(*arguments, program="sample_gpt") == 0
    assert capsys.readouterr().out == alphabet.decode(wanted) + "\n"
    told = json.loads(Path("old/config.json").read_text())
    Path("old/config.json").write_text(json.dumps(told | {"activation_function": "relu"}))
    assert train(*arguments, program="sample_gpt") == 1
    assert "says activation_function=relu, which this model has not" in capsys.readouterr().err


# -- fine-tuning -----------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{}, LLAMA], ids=["gpt2", "llama"])
def test_adapters_merge_into_the_same_model(changed, device):
    from gpt.lora import adapt, adapters, merge
    from gpt.step import make_optimizer

    model = small_model(device, **changed)
    index = gg.from_numpy(np.random.default_rng(0).integers(0, 19, (2, 16))).to(device)
    before = {name: value.cpu().numpy() for name, value in model.state_dict().items()}

    def logits():
        with gg.no_grad():
            return model(index).cpu().numpy()

    base = logits()
    learned = adapt(model, rank=3, alpha=6.0)
    assert np.array_equal(logits(), base)  # B is 0
    maps = 4 if not changed else 5
    assert len(learned) == 2 * maps * 2 == len(adapters(model))
    optimizer = make_optimizer(model, settings_of())
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in learned}
    _, after, _ = stepped(device, 5, model, lr=2e-2)
    frozen = {name.replace(".base.", "."): value for name, value in after.items() if not name.endswith((".a", ".b"))}
    assert all(np.array_equal(frozen[name], before[name]) for name in before)
    adapted = logits()
    assert np.abs(adapted - base).max() > 1e-2
    merge(model)
    assert model.state_dict().keys() == before.keys()
    assert np.allclose(logits(), adapted, atol=1e-5)
    assert all(p.requires_grad for p in model.parameters())


def test_fine_tuning_a_run(device, capsys, monkeypatch):
    Path("other.txt").write_text("the rat sat on the dog, the mat ate the cat. "[::-1].replace(",", ".") * 60)
    assert train("--text", "text.txt", *QUICK, "--steps", 60, "--lr", "1e-2", "--device", device, "--out", "base") == 0
    base = bits("base/model.safetensors")
    arguments = ["--weights", "base", "--text", "other.txt", "--rank", 4, "--steps", 40, "--eval-every", 20]
    arguments += ["--lr", "2e-2", "--no-mfu", "--sample-every", 0, "--device", device]
    assert train(*arguments, "--out", "whole", program="finetune_gpt") == 0
    assert re.search(r"[\d,]+ of [\d,]+ parameters are learned", capsys.readouterr().out)
    losses = [loss for _, loss in json.loads(Path("whole/results.json").read_text())["validation"]]
    assert losses[-1] < losses[0] - 0.3
    adapters, merged = gg.load("whole/adapters.safetensors", device="cpu"), bits("whole/model.safetensors")
    assert {name.rsplit(".", 1)[1] for name in adapters} == {"a", "b"} and merged.keys() == base.keys()
    changed = {name for name in base if base[name] != merged[name]}
    assert changed == {name.removesuffix(".a") + ".weight" for name in adapters if name.endswith(".a")}
    with monkeypatch.context() as patch:
        interrupted_after(13, patch)
        assert train(*arguments, "--out", "broken", program="finetune_gpt") == 130
    assert train("--device", device, "--resume", "broken", "--no-mfu", program="finetune_gpt") == 0
    assert bits("broken/model.safetensors") == merged
    sample = ["--weights", "whole", "--device", device, "--length", 20, "--prompt", "the"]
    assert train(*sample, program="sample_gpt") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--weights says which model to begin with"),
        (["--weights", "base.safetensors", "--text", "foreign.txt"], "are not among the 14 known"),
        (["--weights", "base.safetensors", "--text", "text.txt", "--rank", "0"], "--rank must be at least 1, not 0"),
        (
            ["--weights", "base.safetensors", "--text", "text.txt", "--targets", "nothing"],
            "the model has no linear map called nothing",
        ),
    ],
)
def test_mistakes_in_fine_tuning(arguments, message, capsys):
    from gpt.files import save_model
    from gpt.text import Characters

    alphabet = Characters(WORDS)
    save_model("base.safetensors", small_model(vocabulary=alphabet.size), alphabet)
    Path("foreign.txt").write_text("Überall " * 60)
    assert train(*arguments, "--device", "cpu", program="finetune_gpt") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
