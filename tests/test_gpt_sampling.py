"""Sampling and fine-tuning a GPT, and the layout of Hugging Face's GPT-2."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

import gpugrad as gg
from tests.gpt_runs import LLAMA, QUICK, WORDS, bits, interrupted_after, settings_of, small_model, stepped, train

pytestmark = pytest.mark.usefixtures("gpt_examples")

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
