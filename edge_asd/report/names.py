"""Names of recordings for a page: short, and the same everywhere on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

MAX_CHARACTERS = 160
"""Of a name on the page. Paths may have 4096, and a page may name thousands."""


class Names:
    """Names paths by what they do not have in common."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """``paths``: all that will be named."""
        folders = {str(path.parent) for path in paths}
        try:
            self.folder = Path(os.path.commonpath(folders)) if folders else Path()
        except ValueError:  # absolute and relative ones
            self.folder = Path()

    def __call__(self, path: Path) -> str:
        """Below the common folder, not endless."""
        name = str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)
        return shortened(path.name if name == "." else name)


def shortened(text: str) -> str:
    """Text with its middle left out where it is very long."""
    half = (MAX_CHARACTERS - 3) // 2
    return text if len(text) <= MAX_CHARACTERS else f"{text[:half]}...{text[-half:]}"
