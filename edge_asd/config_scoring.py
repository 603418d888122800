"""What scoring may use of the computer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edge_asd.config_types import Section


class ScoringSection(Section):
    """How much of the computer scoring may use."""

    cores: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Cores that may be busy at once; all that the process may run on unless given, and never more than those."""
