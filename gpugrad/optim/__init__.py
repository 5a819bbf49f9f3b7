"""``gpugrad.optim``: optimizers, and schedules of their learning rates."""

from gpugrad.optim import lr_scheduler
from gpugrad.optim.adagrad import Adagrad
from gpugrad.optim.adam import Adam, AdamW
from gpugrad.optim.optimizer import Optimizer
from gpugrad.optim.rmsprop import RMSprop
from gpugrad.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
