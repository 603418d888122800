"""Where networks are trained, and what makes a training give the same detector again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


def device() -> torch.device:
    """The first GPU, where there is one that torch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic algorithms, and the caller's random numbers and settings as they were afterwards.

    Also a decorator. On a CPU this costs nothing; there, the same seed, data and number of threads give the same
    network to the bit. On a GPU operations that torch has no deterministic algorithm for give a warning.
    """
    # cuBLAS reads it when it starts; https://docs.nvidia.com/cuda/cublas/#results-reproducibility
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    benchmark, fill = torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory
    torch.backends.cudnn.benchmark = False  # it picks algorithms by a race
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill


def machine() -> dict[str, Any]:
    """What else decides the last bits of a network, for the metadata: threads add up in another order."""
    return {"device": str(device()), "threads": torch.get_num_threads()}
