"""``gpugrad.optim``: optimizers, and schedules of their learning rates."""

from gpugrad.absent import missing
from gpugrad.optim import lr_scheduler, swa_utils
from gpugrad.optim.adadelta import Adadelta
from gpugrad.optim.adafactor import Adafactor
from gpugrad.optim.adagrad import Adagrad
from gpugrad.optim.adam import Adam, AdamW
from gpugrad.optim.adamax import Adamax
from gpugrad.optim.asgd import ASGD
from gpugrad.optim.lbfgs import LBFGS
from gpugrad.optim.muon import Muon
from gpugrad.optim.nadam import NAdam
from gpugrad.optim.optimizer import Optimizer
from gpugrad.optim.radam import RAdam
from gpugrad.optim.rmsprop import RMSprop
from gpugrad.optim.rprop import Rprop
from gpugrad.optim.sgd import SGD
from gpugrad.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]

__getattr__ = missing("optim")
