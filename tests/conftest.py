"""What the whole suite shares."""

import os

# What does not touch the kernel is not run again in each emulated one, where Python is 14 times slower.
collect_ignore = (
    [
        "test_benchmarks.py",
        "test_errors.py",
        # The model knows no kernel; the contract and engine suites are what is run there.
        "operation/test_interleavings.py",
        "operation/test_interrupts.py",
        "operation/test_ledger.py",
        "operation/test_model.py",
        "operation/test_testing.py",
        "operation/test_threads.py",
        "test_race.py",
        "test_structure.py",
        "uring/test_prep_arguments.py",
        "uring/test_prep_bytes.py",
        "uring/test_prep_memory.py",
    ]
    if os.environ.get("IOCANCEL_GUEST")
    else []
)
