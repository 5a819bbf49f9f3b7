"""Weights in files: our own, and Hugging Face's GPT-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpugrad as gg
from gpt.model import GPT, Config
from gpt.text import Alphabet, Pieces, alphabet_from_json
from gpugrad.io import load_metadata

# Hugging Face's names of what stands in a block, and whether the matrix is stored as [in, out].
_IN_A_BLOCK = {
    "ln_1": ("norm1", False),
    "attn.c_attn": ("attention.qkv", True),
    "attn.c_proj": ("attention.out", True),
    "ln_2": ("norm2", False),
    "mlp.c_fc": ("feed.up", True),
    "mlp.c_proj": ("feed.down", True),
}
_OUTSIDE = {"wte": "tokens", "wpe": "positions", "ln_f": "norm"}
_MASKS = (".attn.bias", ".attn.masked_bias")  # which older files hold, and are no weights
# What a config.json has to say, if it says anything about it.
_EXPECTED = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def save_model(path: str | Path, model: GPT, alphabet: Alphabet | None) -> None:
    """Write weights, with config and alphabet in the file's header."""
    metadata = {"gpt": json.dumps(model.config.as_dict())}
    if alphabet is not None:
        metadata["alphabet"] = alphabet.as_json()
    gg.save(model.state_dict(), path, metadata=metadata)


def load_model(path: str | Path, device: Any = None) -> tuple[GPT, Alphabet | None]:
    """Model and alphabet of a file of :func:`save_model` or of Hugging Face's GPT-2 (with ``config.json``, and for the
    alphabet ``tokenizer.json``, beside it); of a folder, its ``model.safetensors``.

    Raises ValueError where the file holds no such model."""
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    metadata = load_metadata(path)
    tensors = gg.load(path, device="cpu")
    if "gpt" in metadata:
        config = Config.from_dict(json.loads(metadata["gpt"]))
        alphabet = alphabet_from_json(metadata["alphabet"]) if "alphabet" in metadata else None
    elif any(name.endswith("wte.weight") for name in tensors):
        tensors = from_hugging_face(tensors)
        config = _config_beside(path, tensors)
        description = path.with_name("tokenizer.json")
        alphabet = Pieces.from_file(description) if description.is_file() else None
    else:
        raise ValueError(f"{path} holds no GPT: neither one that train_gpt.py saved nor Hugging Face's GPT-2")
    with gg.random.fork_rng():  # what is drawn here is replaced
        model = GPT(config)
    model.load_state_dict({name: value.float() for name, value in tensors.items()})
    return model.to(device or gg.device("cpu")), alphabet


def from_hugging_face(tensors: dict[str, gg.Tensor]) -> dict[str, gg.Tensor]:
    """Weights of Hugging Face's GPT-2 under the names, and in the order of dimensions, of :class:`GPT`.

    Raises ValueError for names that are not known."""
    ours = {}
    for full, value in tensors.items():
        name = full.removeprefix("transformer.")
        if name == "lm_head.weight" or name.endswith(_MASKS):
            continue  # the first is the embedding once more
        place, _, kind = name.rpartition(".")
        if place in _OUTSIDE:
            ours[f"{_OUTSIDE[place]}.{kind}"] = value
            continue
        first, _, rest = place.partition(".")
        number, _, part = rest.partition(".")
        if first != "h" or part not in _IN_A_BLOCK:
            raise ValueError(f"{full} is no weight of a GPT-2")
        target, swapped = _IN_A_BLOCK[part]
        ours[f"blocks.{number}.{target}.{kind}"] = value.t() if swapped and kind == "weight" else value
    return ours


def to_hugging_face(model: GPT) -> dict[str, gg.Tensor]:
    """The weights as Hugging Face's GPT-2 has them. Raises ValueError for a model that is no GPT-2."""
    c = model.config
    if c.rope or c.rmsnorm or c.swiglu or c.groups != c.heads or not c.bias:
        raise ValueError("a model with rope, rmsnorm, swiglu, kv-heads or without biases is no GPT-2")
    blocks = {ours: (theirs, swapped) for theirs, (ours, swapped) in _IN_A_BLOCK.items()}
    outside = {ours: theirs for theirs, ours in _OUTSIDE.items()}
    result = {}
    for name, value in model.state_dict().items():
        place, _, kind = name.rpartition(".")
        if place in outside:
            result[f"transformer.{outside[place]}.{kind}"] = value
            continue
        _, number, part = place.split(".", 2)
        theirs, swapped = blocks[part]
        result[f"transformer.h.{number}.{theirs}.{kind}"] = value.t() if swapped and kind == "weight" else value
    return result


def _config_beside(path: Path, tensors: dict[str, gg.Tensor]) -> Config:
    """The config of Hugging Face's weights (renamed), from ``config.json`` and their shapes."""
    beside = path.with_name("config.json")
    told = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    for name, allowed in _EXPECTED.items():
        if told.get(name, allowed[0]) not in allowed:
            raise ValueError(f"{beside} says {name}={told[name]}, which this model has not; it has {allowed[0]}")
    vocabulary, channels = tensors["tokens.weight"].shape
    return Config(
        layers=1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")),
        heads=told.get("n_head", max(1, channels // 64)),  # GPT-2's heads have 64 channels, whatever its size
        channels=channels,
        context=tensors["positions.weight"].shape[0],
        vocabulary=vocabulary,
        hidden=tensors["blocks.0.feed.up.weight"].shape[0],
        eps=told.get("layer_norm_epsilon", 1e-5),
    )
