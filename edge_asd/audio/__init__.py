"""From a microphone or a recording to windows: what is heard, what is lost, and whether the signal is sound."""
