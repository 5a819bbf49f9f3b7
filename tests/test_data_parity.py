"""Data sets, samplers, collation and loaders beside PyTorch's: the same values of the same types, the same errors."""

from __future__ import annotations

import warnings
from collections import OrderedDict, UserDict, defaultdict, namedtuple

import numpy as np
import pytest

import gpugrad as gg

Point = namedtuple("Point", "x y")


class OwnList(list):
    pass


def five(d, n=5):
    """A data set of the numbers below ``n``."""

    class Numbers(d.Dataset):
        def __getitem__(self, i):
            if i >= n:
                raise IndexError(i)
            return i

        def __len__(self):
            return n

    return Numbers()


def stream(d):
    class Stream(d.IterableDataset):
        def __iter__(self):
            return iter(range(5))

    return Stream()


#: functions of the framework, its utils.data
COLLATE = {
    "bool": lambda t: [True, False],
    "int": lambda t: [1, 2],
    "float": lambda t: [1.5, 2.5],
    "mixed": lambda t: [1, 2.5],
    "tuples": lambda t: [(1, 2.0, "a"), (3, 4.0, "b")],
    "lists": lambda t: [[1, 2], [3, 4]],
    "named": lambda t: [Point(1, "a"), Point(2, "b")],
    "ordered": lambda t: [OrderedDict(a=1), OrderedDict(a=2)],
    "default": lambda t: [defaultdict(int, a=1), defaultdict(int, a=2)],
    "user dict": lambda t: [UserDict(a=1), UserDict(a=2)],
    "own list": lambda t: [OwnList([1, 2]), OwnList([3, 4])],
    "strings": lambda t: ["a", "b"],
    "bytes": lambda t: [b"a", b"b"],
    "half": lambda t: [np.ones(2, np.float16)] * 2,
    "0-d arrays": lambda t: [np.array(1), np.array(2)],
    "NumPy numbers": lambda t: [np.float32(1), np.float32(2)],
    "NumPy bools": lambda t: [np.bool_(True), np.bool_(False)],
    "tensors": lambda t: [t.ones(2), t.zeros(2)],
    "0-d tensors": lambda t: [t.tensor(1), t.tensor(2)],
    "nested": lambda t: [{"a": [1, (2, "x")], "b": {"c": np.ones(1)}}] * 2,
    "ranges": lambda t: [range(2), range(2)],
    "text arrays": lambda t: [np.array(["a"])],
    "None": lambda t: [None, None],
    "sets": lambda t: [{1}, {2}],
    "nothing": lambda t: [],
    "lengths": lambda t: [[1], [1, 2]],
    "shapes": lambda t: [t.ones(1), t.ones(2)],
    "keys": lambda t: [{"a": 1}, {"b": 1}],
    "complex": lambda t: [1j],
}
CASES = {
    **{f"collate {k}": lambda t, d, f=f: d.default_collate(f(t)) for k, f in COLLATE.items()},
    **{f"convert {k}": lambda t, d, f=f: d.default_convert(f(t)) for k, f in COLLATE.items()},
    "RandomSampler of nothing": lambda t, d: d.RandomSampler([]),
    "RandomSampler replacement": lambda t, d: d.RandomSampler([1], replacement=1),
    "RandomSampler -1": lambda t, d: d.RandomSampler([1], num_samples=-1),
    "RandomSampler 1.0": lambda t, d: d.RandomSampler([1], num_samples=1.0),
    "RandomSampler 7": lambda t, d: sorted(list(d.RandomSampler(range(3), num_samples=7))[:6]),
    "Weighted 0": lambda t, d: d.WeightedRandomSampler([1.0], 0),
    "Weighted 2-d": lambda t, d: d.WeightedRandomSampler([[1.0]], 1),
    "Weighted replacement": lambda t, d: d.WeightedRandomSampler([1.0], 1, replacement=1),
    "Weighted too many": lambda t, d: list(d.WeightedRandomSampler([1.0], 2, replacement=False)),
    "Batch 0": lambda t, d: d.BatchSampler([1], 0, False),
    "Batch 1.0": lambda t, d: d.BatchSampler([1], 1.0, False),
    "Batch drop_last": lambda t, d: d.BatchSampler([1], 1, 1),
    "Batch of an iterator": lambda t, d: list(d.BatchSampler(iter(range(5)), 2, False)),
    "Sampler": lambda t, d: list(d.Sampler()),
    "Distributed": lambda t, d: [list(d.DistributedSampler(five(d, 7), 3, r, False)) for r in range(3)],
    "Distributed drop": lambda t, d: [list(d.DistributedSampler(five(d, 7), 3, r, False, 0, True)) for r in range(3)],
    "Distributed few": lambda t, d: [list(d.DistributedSampler(five(d, 2), 5, r, shuffle=False)) for r in range(5)],
    "Distributed rank": lambda t, d: d.DistributedSampler(five(d), 2, 2),
    "Dataset": lambda t, d: d.Dataset()[0],
    "Dataset length": lambda t, d: len(d.Dataset()),
    "TensorDataset sizes": lambda t, d: d.TensorDataset(t.ones(2), t.ones(3)),
    "TensorDataset item": lambda t, d: d.TensorDataset(t.ones(2), t.arange(2))[1],
    "TensorDataset slice": lambda t, d: d.TensorDataset(t.arange(4))[1:3],
    "TensorDataset out": lambda t, d: d.TensorDataset(t.arange(4))[4],
    "Concat nothing": lambda t, d: d.ConcatDataset([]),
    "Concat stream": lambda t, d: d.ConcatDataset([stream(d)]),
    "Concat": lambda t, d: [d.ConcatDataset([five(d, 2), five(d, 3)])[i] for i in (-5, -1, 2)],
    "Concat loop": lambda t, d: list(d.ConcatDataset([five(d, 2), five(d, 3)])),
    "Concat before": lambda t, d: d.ConcatDataset([five(d, 2), five(d, 3)])[-6],
    "Concat sizes": lambda t, d: (five(d, 2) + five(d, 3)).cumulative_sizes,
    "Chain": lambda t, d: list(stream(d) + stream(d)),
    "Chain of no streams": lambda t, d: list(d.ChainDataset([five(d)])),
    "Chain length": lambda t, d: len(d.ChainDataset([stream(d)])),
    "Stack": lambda t, d: [d.StackDataset(five(d), five(d))[1], d.StackDataset(a=five(d), b=five(d))[1]],
    "Stack both": lambda t, d: d.StackDataset(five(d), b=five(d)),
    "Stack nothing": lambda t, d: d.StackDataset(),
    "Stack lengths": lambda t, d: d.StackDataset(five(d, 2), five(d, 3)),
    "Stack items": lambda t, d: d.StackDataset(a=five(d)).__getitems__([1, 2]),
    "Subset": lambda t, d: [d.Subset(five(d), [3, 1])[1], d.Subset(five(d), [3, 1]).__getitems__([0])],
    "Subset out": lambda t, d: d.Subset(five(d), [3, 1])[2],
    "split": lambda t, d: [len(x) for x in d.random_split(five(d), [0.5, 0.25, 0.25])],
    "split sum": lambda t, d: d.random_split(five(d), [2, 2]),
    "split range": lambda t, d: d.random_split(five(d), [1.5, -0.5]),
    "split empty": lambda t, d: d.random_split(five(d), [5, 0]),
    "load": lambda t, d: [list(d.DataLoader(five(d), 2)), list(d.DataLoader(five(d), None))],
    "load stream": lambda t, d: list(d.DataLoader(stream(d), 2, shuffle=False, drop_last=True)),
    "load stream length": lambda t, d: len(d.DataLoader(stream(d), 2)),
    "load batches": lambda t, d: list(d.DataLoader(five(d), batch_sampler=[[0, 2], [1]])),
    "load order": lambda t, d: list(d.DataLoader(five(d), batch_size=None, sampler=[1, 0])),
    "load lists": lambda t, d: [list(d.DataLoader(x, 2)) for x in ([1, 2, 3], np.arange(3), t.arange(3), [])],
    "load nothing, shuffled": lambda t, d: d.DataLoader([], 2, shuffle=True),
    "both batches": lambda t, d: d.DataLoader(five(d), 2, batch_sampler=[[0]]),
    "both orders": lambda t, d: d.DataLoader(five(d), shuffle=True, sampler=[0]),
    "shuffled stream": lambda t, d: d.DataLoader(stream(d), shuffle=True),
    "sampled stream": lambda t, d: d.DataLoader(stream(d), sampler=[0]),
    "batched stream": lambda t, d: d.DataLoader(stream(d), batch_sampler=[[0]]),
    "num_workers": lambda t, d: d.DataLoader(five(d), num_workers=-1),
    "timeout": lambda t, d: d.DataLoader(five(d), timeout=-1),
    "prefetch_factor": lambda t, d: d.DataLoader(five(d), prefetch_factor=2),
    "persistent_workers": lambda t, d: d.DataLoader(five(d), persistent_workers=True),
    "context": lambda t, d: d.DataLoader(five(d), multiprocessing_context="spawn"),
    "context unknown": lambda t, d: d.DataLoader(five(d), num_workers=1, multiprocessing_context="odd"),
    "context number": lambda t, d: d.DataLoader(five(d), num_workers=1, multiprocessing_context=3),
    "batch_size 2.0": lambda t, d: d.DataLoader(five(d), 2.0),
    "batch_size 0": lambda t, d: d.DataLoader(five(d), 0),
    "no batch to drop": lambda t, d: d.DataLoader(five(d), None, drop_last=True),
    "set": lambda t, d: setattr(d.DataLoader(five(d)), "batch_size", 3),
    "attributes": lambda t, d: {
        k: getattr(d.DataLoader(five(d), 2), k)
        for k in ("batch_size", "drop_last", "num_workers", "pin_memory", "timeout", "worker_init_fn", "generator",
                  "prefetch_factor", "persistent_workers", "pin_memory_device", "in_order", "multiprocessing_context")
    },
    "made of": lambda t, d: [type(getattr(d.DataLoader(five(d), shuffle=True), k)).__name__
                             for k in ("sampler", "batch_sampler")],
}  # fmt: skip


def outcome(f, t):
    """What came out, in plain values with the names of types; or the type of the error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return plain(f(t, t.utils.data), t)
    except Exception as error:
        return "raises", next(c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins")


def plain(v, t):
    if isinstance(v, t.Tensor):
        return "tensor", str(v.dtype).split(".")[1], tuple(v.shape), v.tolist()
    if isinstance(v, (dict, UserDict)):
        return type(v).__name__, [(k, plain(x, t)) for k, x in v.items()]
    if isinstance(v, (list, tuple)):
        return type(v).__name__, [plain(x, t) for x in v]
    if isinstance(v, np.ndarray):
        return "array", str(v.dtype), v.tolist()
    return (type(v).__name__, v) if isinstance(v, (str, bytes, int, float, complex)) else type(v).__name__


@pytest.mark.parametrize("name", list(CASES))
def test_like_pytorch(name, torch):
    ours, theirs = outcome(CASES[name], gg), outcome(CASES[name], torch)
    assert ours == theirs


def test_names(torch):
    pipes = {"IterDataPipe", "MapDataPipe", "DFIterDataPipe", "DataChunk", "functional_datapipe", "_DatasetKind",
             "argument_validation", "guaranteed_datapipes_determinism", "non_deterministic", "runtime_validation",
             "runtime_validation_disabled"}  # fmt: skip
    assert set(torch.utils.data.__all__) - pipes <= set(gg.utils.data.__all__)
