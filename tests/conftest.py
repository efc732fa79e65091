"""What the whole suite shares."""

import os

# What does not touch the kernel is not run again in each emulated one, where Python is 14 times slower.
collect_ignore = (
    [
        "test_benchmarks.py",
        "test_errors.py",
        "test_structure.py",
        "uring/test_prep_arguments.py",
        "uring/test_prep_bytes.py",
        "uring/test_prep_memory.py",
    ]
    if os.environ.get("IOCANCEL_GUEST")
    else []
)
