"""Datasets, samplers, collation and the DataLoader."""

from __future__ import annotations

import os
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest

import gpugrad as gg
from gpugrad.utils import data as D


class Squares(D.Dataset):
    def __init__(self, n):
        self.n = n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        return i, gg.tensor(float(i * i))

    def __len__(self):
        return self.n


class Stream(D.IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def _tensors(n=10, device="cpu"):
    return D.TensorDataset(gg.arange(n, device=device), gg.arange(2 * n, device=device).reshape(n, 2))


# -- datasets ------------------------------------------------------------------------------
def test_tensor_dataset(device):
    d = _tensors(4, device)
    assert len(d) == 4 and [t.tolist() for t in d[2]] == [2, [4, 5]]
    with pytest.raises(AssertionError, match=r"\(3,\), \(4, 1\)"):
        D.TensorDataset(gg.ones(3), gg.ones(4, 1))


def test_concat_subset_stack_chain():
    both = Squares(3) + Squares(2)
    assert len(both) == 5 and both[4][0] == 1 and both[-5][0] == 0
    with pytest.raises(IndexError, match="out of range"):
        both[5]
    with pytest.raises(ValueError, match="out of range"):
        both[-6]
    assert len(list(both)) == 5
    sub = D.Subset(both, [4, 0])
    assert [sub[i][0] for i in range(len(sub))] == [1, 0] and [x[0] for x in sub.__getitems__([1, 0])] == [0, 1]
    assert D.StackDataset(a=Squares(2), b=Squares(2))[1]["a"][0] == 1
    assert D.StackDataset(Squares(2), Squares(2))[1][1][0] == 1
    with pytest.raises(ValueError, match=r"StackDataset: datasets must be equally long, got lengths"):
        D.StackDataset(Squares(2), Squares(3))
    assert list(Stream(2) + Stream(3)) == [0, 1, 0, 1, 2]
    with pytest.raises(AssertionError, match="IterableDataset"):
        D.ConcatDataset([Stream(2)])
    with pytest.raises(AssertionError, match="empty"):
        D.ConcatDataset([])
    with pytest.raises(AssertionError, match="Squares is no IterableDataset"):
        list(D.ChainDataset([Squares(2)]))
    rows = D.StackDataset(both, Squares(5)).__getitems__([4, 0])
    assert [(a[0], b[0]) for a, b in rows] == [(1, 4), (0, 0)]
    assert D.StackDataset(x=range(3)).__getitems__([2, 1]) == [{"x": 2}, {"x": 1}]


def test_random_split():
    a, b = D.random_split(Squares(10), [7, 3], generator=gg.Generator().manual_seed(1))
    c, d = D.random_split(Squares(10), [0.7, 0.3], generator=gg.Generator().manual_seed(1))
    assert sorted([*a.indices, *b.indices]) == list(range(10)) and a.indices != list(range(7))
    assert (a.indices, b.indices) == (c.indices, d.indices)
    assert [len(s) for s in D.random_split(Squares(10), [1 / 3] * 3)] == [4, 3, 3]
    with pytest.raises(ValueError, match="add up to"):
        D.random_split(Squares(10), [7, 4])


# -- samplers --------------------------------------------------------------------------------
def test_samplers():
    assert list(D.SequentialSampler(range(4))) == [0, 1, 2, 3]
    order = list(D.RandomSampler(range(50), generator=gg.Generator().manual_seed(0)))
    assert sorted(order) == list(range(50)) and order != list(range(50))
    assert order == list(D.RandomSampler(range(50), generator=gg.Generator().manual_seed(0)))
    more = D.RandomSampler(range(4), num_samples=10)
    assert len(more) == 10 and sorted(list(more)[:4]) == [0, 1, 2, 3]
    drawn = Counter(D.RandomSampler(range(4), replacement=True, num_samples=4000))
    assert all(850 < drawn[i] < 1150 for i in range(4))
    assert sorted(D.SubsetRandomSampler([3, 5, 9])) == [3, 5, 9]
    weighted = Counter(D.WeightedRandomSampler([0.0, 1.0, 3.0], 4000))
    assert weighted[0] == 0 and 850 < weighted[1] < 1150
    assert sorted(D.WeightedRandomSampler([1.0, 1.0, 1.0], 3, replacement=False)) == [0, 1, 2]
    assert list(D.BatchSampler(range(5), 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(D.BatchSampler(range(5), 2, True)) == [[0, 1], [2, 3]]
    assert len(D.BatchSampler(range(5), 2, False)) == 3 and len(D.BatchSampler(range(5), 2, True)) == 2
    with pytest.raises(ValueError, match="the dataset has no items"):
        D.RandomSampler([])
    for build in (
        lambda: D.RandomSampler(range(3), num_samples=0),
        lambda: D.BatchSampler(range(3), 0, False),
        lambda: D.WeightedRandomSampler([1.0], 0),
    ):
        with pytest.raises(ValueError, match="must be an int of at least 1, got 0"):
            build()


def test_distributed_sampler():
    shares = [D.DistributedSampler(Squares(7), 3, r, shuffle=False) for r in range(3)]
    assert [list(s) for s in shares] == [[0, 3, 6], [1, 4, 0], [2, 5, 1]] and len(shares[0]) == 3
    assert [list(D.DistributedSampler(Squares(7), 3, r, False, drop_last=True)) for r in range(3)] == [
        [0, 3], [1, 4], [2, 5]]  # fmt: skip
    assert [list(D.DistributedSampler(Squares(2), 5, r, shuffle=False)) for r in range(5)] == [[0], [1]] * 2 + [[0]]
    mixed = [D.DistributedSampler(Squares(8), 2, r, seed=3) for r in range(2)]
    first = [list(s) for s in mixed]
    assert sorted(first[0] + first[1]) == list(range(8)) and first == [list(s) for s in mixed]
    for s in mixed:
        s.set_epoch(1)
    assert [list(s) for s in mixed] != first
    with pytest.raises(ValueError, match="rank 2 is out of range"):
        D.DistributedSampler(Squares(2), 2, 2)
    with pytest.raises(RuntimeError, match="give num_replicas and rank"):
        D.DistributedSampler(Squares(2))


# -- collation ---------------------------------------------------------------------------------
def test_default_collate():
    Point = namedtuple("Point", "x y")
    samples = [
        {"t": gg.ones(2) * i, "n": np.full(3, i, np.float32), "f": 0.5 * i, "i": i, "s": str(i), "b": i > 0,
         "p": Point(i, [i, i]), "u": np.int16(i)}
        for i in range(3)
    ]  # fmt: skip
    out = D.default_collate(samples)
    assert out["t"].shape == (3, 2) and out["n"].shape == (3, 3) and out["n"].dtype is gg.float32
    assert out["f"].dtype is gg.float64 and out["i"].dtype is gg.int64 and out["b"].dtype is gg.bool
    assert D.default_collate([("a", 1), ("b", 2)])[0] == ("a", "b")
    named = D.default_collate([defaultdict(list, a=1), defaultdict(list, a=2)])
    assert type(named) is defaultdict and named["new"] == [] and named["a"].tolist() == [1, 2]
    assert type(D.default_convert(OrderedDict(a=1))) is OrderedDict
    assert D.default_collate([1, 2.5]).tolist() == [1.0, 2.5] and D.default_collate([range(2)] * 2)[1].tolist() == [
        1,
        1,
    ]
    assert out["s"] == ["0", "1", "2"] and out["u"].dtype is gg.int16
    assert isinstance(out["p"], Point) and out["p"].x.tolist() == [0, 1, 2] and len(out["p"].y) == 2
    for batch, kind, text in (
        ([object()], TypeError, "not of object; pass a collate_fn"),
        ([[1, 2], [1]], RuntimeError, "differ in length"),
        ([gg.ones(2), gg.ones(3)], RuntimeError, r"\(2,\) and \(3,\)"),
        ([np.array(["a"])], TypeError, "an array of <U1"),
    ):
        with pytest.raises(kind, match=text):
            D.default_collate(batch)
    assert D.default_convert({"a": np.ones(2), "b": "x"})["a"].dtype is gg.float64


# -- the loader ------------------------------------------------------------------------------------
def test_batches_of_samples():
    batches = list(D.DataLoader(Squares(5), batch_size=2))
    assert [b[0].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert batches[1][1].tolist() == [4.0, 9.0] and isinstance(batches[0], list)
    assert len(D.DataLoader(Squares(5), 2)) == 3 and len(D.DataLoader(Squares(5), 2, drop_last=True)) == 2
    assert len(list(D.DataLoader(Squares(5), 2, drop_last=True))) == 2
    singles = list(D.DataLoader(Squares(3), batch_size=None))
    assert singles[2][0] == 2 and len(singles) == 3
    assert list(D.DataLoader(Squares(4), 2, collate_fn=lambda s: [i for i, _ in s])) == [[0, 1], [2, 3]]


def test_tensor_batches_equal_batches_of_samples(device):
    """The quick way for a TensorDataset gives what collating its samples gives."""
    dataset = _tensors(11, device)
    half = D.Subset(D.Subset(dataset, list(range(10, 0, -1))), [1, 3, 5, 7, 9])
    for source in (dataset, half):
        for options in ({}, {"shuffle": True}, {"drop_last": True}, {"sampler": [3, 1, 2, 0, -1]},
                        {"batch_size": 1, "batch_sampler": [[0, 2], [4]]}):  # fmt: skip
            found = []
            for collate in (None, lambda samples: D.default_collate(samples)):
                gg.manual_seed(5)
                loader = D.DataLoader(source, **{"batch_size": 4, **options}, collate_fn=collate)
                found.append([[t.tolist() for t in batch] for batch in loader])
            assert found[0] == found[1] and found[0]
            assert len(found[0]) == len(loader)


def test_tensor_batches_do_not_fetch_samples(monkeypatch):
    monkeypatch.setattr(D.TensorDataset, "__getitem__", lambda self, i: pytest.fail("fetched a sample"))
    assert len(list(D.DataLoader(_tensors(), 4, shuffle=True))) == 3


def test_tensor_batches_are_the_users_own(device):
    dataset = _tensors(4, device)
    for batch, _ in D.DataLoader(dataset, 2):
        batch.zero_()
    assert dataset.tensors[0].tolist() == [0, 1, 2, 3]


def test_tensor_batches_check_positions():
    with pytest.raises(IndexError, match="index 10 is out of range"):
        list(D.DataLoader(_tensors(), 2, sampler=[3, 10]))


def test_order_with_a_seed():
    def epochs(loader, n):
        return [[i for b in loader for i in b[0].tolist()] for _ in range(n)]

    first = epochs(D.DataLoader(_tensors(20), 4, shuffle=True, seed=3), 3)
    gg.manual_seed(99)
    assert first == epochs(D.DataLoader(_tensors(20), 4, shuffle=True, seed=3), 3)
    assert first[0] != first[1] != first[2] and sorted(first[0]) == list(range(20))
    resumed = D.DataLoader(_tensors(20), 4, shuffle=True, seed=3)
    resumed.set_epoch(2)
    assert epochs(resumed, 1) == first[2:]
    assert epochs(D.DataLoader(_tensors(20), 4, shuffle=True, seed=4), 1) != first[:1]
    together = D.DataLoader(_tensors(20), 4, shuffle=True, seed=3)
    both = list(zip(together, together, strict=True))
    assert [[i for pair in both for i in pair[k][0].tolist()] for k in (0, 1)] == first[:2]
    by_generator = [epochs(D.DataLoader(_tensors(20), 4, shuffle=True, generator=gg.Generator().manual_seed(1)), 2)
                    for _ in range(2)]  # fmt: skip
    assert by_generator[0] == by_generator[1] and by_generator[0][0] != by_generator[0][1]


def test_streams():
    assert [b.tolist() for b in D.DataLoader(Stream(5), 2)] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in D.DataLoader(Stream(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(D.DataLoader(Stream(3), None)) == [0, 1, 2]
    assert len(D.DataLoader(Stream(5), 2)) == 3


def test_mistakes():
    for options, kind, text in (
        ({"num_workers": 2, "prefetch_factor": 0}, ValueError, "prefetch_factor"),
        ({"persistent_workers": True}, ValueError, "num_workers > 0"),
        ({"num_workers": -1}, ValueError, "num_workers must be at least 0 .* got -1"),
        ({"shuffle": True, "sampler": [0]}, ValueError, "sampler and shuffle=True both set the order"),
        ({"batch_sampler": [[0]], "batch_size": 3}, ValueError, "batch_sampler makes the batches alone"),
        ({"batch_size": None, "drop_last": True}, ValueError, "batch_size=None there is no batch that drop_last"),
        ({"batch_size": 0}, ValueError, "batch_size must be an int of at least 1, got 0"),
        ({"seed": 1, "generator": gg.Generator()}, ValueError, "either seed or generator"),
        ({"prefetch_factor": 2}, ValueError, "prefetch_factor"),
        ({"multiprocessing_context": "spawn"}, ValueError, "set num_workers > 0"),
        ({"multiprocessing_context": "thread", "num_workers": 1}, ValueError, "'thread' is unknown"),
        ({"multiprocessing_context": 3, "num_workers": 1}, TypeError, "not int"),
    ):
        with pytest.raises(kind, match=text):
            D.DataLoader(Squares(3), **options)
    with pytest.raises(ValueError, match="shuffle"):
        D.DataLoader(Stream(3), shuffle=True)
    with pytest.raises(ValueError, match="sampler"):
        D.DataLoader(Stream(3), sampler=[0])


def test_what_a_loader_is_made_of():
    loader = D.DataLoader[int](Squares(5), 2, num_workers=2)
    assert loader.prefetch_factor == 2 and loader.in_order and loader.pin_memory_device == ""
    for name in ("batch_size", "sampler", "batch_sampler", "drop_last", "dataset", "persistent_workers"):
        with pytest.raises(ValueError, match=f"{name} cannot be set any more"):
            setattr(loader, name, 3)
    loader.collate_fn = list
    from gpugrad.utils.data.dataloader import DataLoader, default_collate
    from gpugrad.utils.data.distributed import DistributedSampler
    from gpugrad.utils.data.sampler import SubsetRandomSampler

    assert DataLoader is D.DataLoader and default_collate is D.default_collate
    assert DistributedSampler is D.DistributedSampler and SubsetRandomSampler is D.SubsetRandomSampler


# -- worker processes ------------------------------------------------------------------------------
class Share(D.IterableDataset):
    """0 ... n-1, shared out among the workers."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = D.get_worker_info()
        yield from range(self.n)[info.id :: info.num_workers] if info else range(self.n)


class Failing(Squares):
    def __getitem__(self, i):
        if i == 3:
            raise KeyError(f"no item {i}")
        return super().__getitem__(i)


class OwnError(Exception):
    pass


class TwoPartError(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)


class FailingInItsWay(Squares):
    def __getitem__(self, i):
        raise TwoPartError(1, 2) if self.n == 2 else OwnError("mine")


class Dying(Squares):
    def __getitem__(self, i):
        os._exit(7)


class Slow(Squares):
    def __getitem__(self, i):
        time.sleep(5)


class Who(Squares):
    def __getitem__(self, i):
        return D.get_worker_info().id, float(gg.rand(1).item())


def _remember(worker):
    global remembered
    remembered = worker


class Remembered(Squares):
    def __getitem__(self, i):
        return remembered


CONTEXT = {"multiprocessing_context": "spawn"}  # the one way to start that is there on every system


def test_workers_give_the_same_batches():
    for source in (Squares(11), _tensors(11)):
        options = {"batch_size": 3, "shuffle": True, "seed": 5}
        alone = D.DataLoader(source, **options)
        helped = D.DataLoader(source, **options, num_workers=2, persistent_workers=True, **CONTEXT)
        for _ in range(2):
            expected = [[t.tolist() for t in batch] for batch in alone]
            assert [[t.tolist() for t in batch] for batch in helped] == expected
        next(iter(helped))  # an abandoned pass leaves nothing behind
        helped.set_epoch(1)
        assert [[t.tolist() for t in batch] for batch in helped] == expected


def test_workers_share_a_stream():
    found = [b.tolist() for b in D.DataLoader(Share(9), 2, num_workers=2, **CONTEXT)]
    assert found == [[0, 2], [1, 3], [4, 6], [5, 7], [8]]


def test_workers_know_who_they_are_and_draw_differently():
    ids, numbers = zip(*D.DataLoader(Who(6), None, num_workers=2, **CONTEXT), strict=True)
    assert ids == (0, 1, 0, 1, 0, 1) and len(set(numbers)) == 6
    assert D.get_worker_info() is None
    found = list(D.DataLoader(Remembered(4), None, num_workers=2, worker_init_fn=_remember, **CONTEXT))
    assert found == [0, 1, 0, 1]


class Threads(D.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return gg.get_num_threads() if i == 0 else int((gg.ones(200, 200) @ gg.ones(200, 200)).sum().item())


def test_workers_compute_with_one_thread_each():
    before = gg.get_num_threads()
    try:
        gg.set_num_threads(2)
        gg.ones(200, 200) @ gg.ones(200, 200)  # threads that are not there in a forked worker
        assert list(D.DataLoader(Threads(), None, num_workers=1, **CONTEXT)) == [1, 8_000_000]
        assert gg.get_num_threads() == 2
    finally:
        gg.set_num_threads(before)


def test_workers_need_the_dataset_on_the_cpu(device):
    if device == "cpu":
        assert len(D.DataLoader(_tensors(4, device), 2, num_workers=1)) == 2
    else:
        with pytest.raises(ValueError, match="use num_workers=0"):
            D.DataLoader(_tensors(4, device), num_workers=1)


def test_errors_of_workers_arrive():
    with pytest.raises(KeyError, match="worker 1.*no item 3"):
        list(D.DataLoader(Failing(8), 2, num_workers=2, **CONTEXT))
    with pytest.raises(OwnError, match="(?s)worker 0.*mine"):
        list(D.DataLoader(FailingInItsWay(1), num_workers=1, **CONTEXT))
    with pytest.raises(RuntimeError, match="TwoPartError in DataLoader worker 0"):
        list(D.DataLoader(FailingInItsWay(2), num_workers=1, **CONTEXT))
    with pytest.raises(RuntimeError, match="worker . .* died with its batch undone, exit code 7"):
        list(D.DataLoader(Dying(4), 2, num_workers=1, **CONTEXT))
    with pytest.raises(RuntimeError, match="after 1.5 seconds worker . has not delivered"):
        list(D.DataLoader(Slow(4), 2, num_workers=1, timeout=1.5, **CONTEXT))
