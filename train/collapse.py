"""What a collapsed network is: one whose output does not vary with its input, so that its score is the distance to a
constant. Training stops with the figure rather than write such a detector."""

from edge_asd.errors import EdgeAsdError


class CollapseError(EdgeAsdError):
    """Training ended with a network that does not follow its input."""
