"""Hears from the sound of a factory machine that it is about to fail.

Sound flows one way, and the modules stand in its order: ``audio`` (recordings, windows), ``logmel``, ``detector``,
``calibration``, ``alarm``, ``pipeline`` (all of these for one machine), ``publish``, ``daemon``.
"""

__version__ = "0.1.0"
