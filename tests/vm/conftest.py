"""Only the guest of run.sh has sound cards that may be taken away: elsewhere nothing here is collected."""

from __future__ import annotations

from pathlib import Path

IS_GUEST = Path("/command").is_file()

collect_ignore_glob = [] if IS_GUEST else ["test_*.py"]
