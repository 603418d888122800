"""Cuts windows into crops on a fixed grid, puts crops together again, and draws random ones for training."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def crop_starts(frames: int, crop_frames: int) -> list[int]:
    """First frames of the crops of a window: as few as cover it, evenly spread, from its first frame to its last.

    Raises:
        ValueError: the window is shorter than a crop.
    """
    if frames < crop_frames:
        raise ValueError(f"a window of {frames} frames is shorter than a crop of {crop_frames}")
    last = frames - crop_frames
    gaps = -(-last // crop_frames)
    return [round(last * k / gaps) for k in range(gaps + 1)] if gaps else [0]


def cut(images: Tensor, crop_frames: int) -> Tensor:
    """``[window, mel, frame]`` to ``[window * crop, 1, mel, crop frame]``, a window's crops in a row."""
    starts = crop_starts(images.shape[2], crop_frames)
    return torch.stack([images[:, :, s : s + crop_frames] for s in starts], 1).flatten(0, 1).unsqueeze(1)


def join(crops: Tensor, frames: int) -> Tensor:
    """The way back to ``[window, mel, frame]``; where crops overlap, their mean."""
    crop_frames = crops.shape[3]
    starts = crop_starts(frames, crop_frames)
    of_window = crops.reshape(-1, len(starts), *crops.shape[2:])
    # From edge to edge of the crops: stretches of one crop are copied, only where they overlap is anything computed.
    edges = sorted({*starts, *(start + crop_frames for start in starts)})
    stretches = []
    for begin, end in itertools.pairwise(edges):
        there = [
            of_window[:, k, :, begin - start : end - start]
            for k, start in enumerate(starts)
            if start <= begin and end <= start + crop_frames
        ]
        stretches.append(there[0] if len(there) == 1 else torch.stack(there).mean(dim=0))
    return torch.cat(stretches, dim=2)


def random_crops(
    images: Tensor, rows: NDArray[np.intp], count: int, crop_frames: int, random: torch.Generator
) -> Tensor:
    """``[count, 1, mel, crop_frames]`` from random places of random ones of some images ``[window, mel, frame]``.

    Args:
        images: of which some are drawn from; a copy of those could be too large.
        rows: their indices.
        count: crops.
        crop_frames: of a crop.
        random: where the draw comes from.
    """
    drawn = torch.randint(len(rows), (count,), generator=random)
    starts = torch.randint(images.shape[2] - crop_frames + 1, (count,), generator=random)
    windows = rows[drawn.numpy()]
    picked = [images[w, :, s : s + crop_frames] for w, s in zip(windows.tolist(), starts.tolist(), strict=True)]
    return torch.stack(picked).unsqueeze(1)
