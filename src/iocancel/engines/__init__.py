"""The engines: one for each system, and `open_engine`, which picks."""

from iocancel.engines.auto import open_engine

__all__ = ["open_engine"]
