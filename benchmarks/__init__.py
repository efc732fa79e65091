"""What cancelling costs: iocancel against the same loops in C, and against PyPI's `liburing`.

`./dev bench` or `python -m benchmarks`; see `__main__.py`.
"""
