"""`make bench`: speed, memory, and quality for time, all in one run."""
