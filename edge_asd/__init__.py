"""Hears from the sound of a factory machine that it is about to fail.

Sound flows one way, and the modules stand in its order: ``audio`` (recordings, windows), ``logmel``, ``detector``,
``calibration``, ``alarm``, ``pipeline`` (all of these for one machine), ``publish``, ``daemon``.
"""

import os

# ONNX Runtime's Linux builds send usage data to their maker since 1.29, unless this is set before they are imported
# (`onnxruntime.disable_telemetry_events` comes too late). What is heard in a plant is nobody else's.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

__version__ = "0.1.0"
