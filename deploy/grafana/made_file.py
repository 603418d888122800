"""What the scripts here do with what they make: write it, or say whether the file that is there is up to date."""

from __future__ import annotations

import sys
from pathlib import Path


def write_or_check(path: Path, text: str) -> int:
    """Exit status: 1 if ``--check`` is asked for, and the file holds something else.

    Args:
        path: of the file.
        text: that it shall hold.
    """
    if "--check" not in sys.argv[1:]:
        path.write_text(text, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != text:
        print(f"{path} is not what {Path(sys.argv[0]).name} makes: run it", file=sys.stderr)
        return 1
    return 0
