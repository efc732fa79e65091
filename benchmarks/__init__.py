"""What cancelling costs: iocancel against the same loops in C, and against peers.

`./dev bench` or `python -m benchmarks`; see `__main__.py`.
"""
