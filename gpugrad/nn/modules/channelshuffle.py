"""PyTorch's module of this name: ``torch.nn.modules.channelshuffle``, for programs that import from there."""

from gpugrad.nn.resampling import ChannelShuffle

__all__ = [
    "ChannelShuffle",
]
