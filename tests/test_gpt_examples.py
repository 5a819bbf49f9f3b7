"""The GPT of the examples: its model, a step, its text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from tests.gpt_runs import LLAMA, WORDS, batches, settings_of, small_config, small_model, stepped

pytestmark = pytest.mark.usefixtures("gpt_examples")

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


@pytest.mark.parametrize("changed", [{}, LLAMA], ids=["gpt2", "llama"])
def test_the_stream_is_what_separate_sums_and_norms_make_it(changed, device, monkeypatch):
    import gpt.model

    def in_two(norm, x, added):
        x = x if added is None else x + added
        return norm(x), x

    def gradients():
        model = small_model(device, **changed)
        ((x, y),) = batches(device, 1)
        loss = model.loss(x[0], y[0])
        loss.backward()
        return loss.item(), {name: p.grad.cpu().numpy() for name, p in model.named_parameters()}

    loss, found = gradients()
    monkeypatch.setattr(gpt.model, "normed", in_two)
    same, wanted = gradients()
    assert loss == pytest.approx(same, rel=1e-6)
    for name, g in wanted.items():
        np.testing.assert_allclose(found[name], g, rtol=1e-4, atol=1e-5 * np.abs(g).max(), err_msg=name)


def test_the_loss_of_many_logits_is_made_in_parts(device, monkeypatch):
    from gpugrad.nn.functional import chunked

    model = small_model(device)
    ((x, y),) = batches(device, 1)
    logits = model(x[0])
    whole = gg.nn.functional.cross_entropy(logits.flatten(0, 1), y[0].flatten())
    whole.backward()
    wanted = {name: p.grad.cpu().numpy() for name, p in model.named_parameters()}
    model.zero_grad()
    sizes, of_logits = [], chunked._Options.of_logits

    def counting(self, part, *others):
        sizes.append(part.shape[0])
        return of_logits(self, part, *others)

    monkeypatch.setattr(chunked._Options, "of_logits", counting)
    assert model.loss(x[0], y[0]).item() == pytest.approx(whole.item(), rel=1e-6) and not sizes
    monkeypatch.setattr(chunked, "CHUNK", 19 * 12)
    monkeypatch.setattr(chunked, "LEAST", 5)
    loss = model.loss(x[0], y[0])
    loss.backward()
    assert sizes == [12] * 4
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad.cpu().numpy(), wanted[name], rtol=1e-4, atol=1e-6, err_msg=name)


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
