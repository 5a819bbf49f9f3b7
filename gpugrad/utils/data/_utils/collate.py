"""``torch.utils.data._utils.collate``: :func:`default_collate` and :func:`default_convert`."""

from gpugrad.utils.data.collate import default_collate, default_convert

__all__ = ["default_collate", "default_convert"]
