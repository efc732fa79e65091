"""pickle.load from a pipe whose writer stalls in the middle of a value.

`pickle.load` takes any file object, so it gains a deadline by being given one of `iocancel`. What it had read
of the broken value is gone with it: such a pipe is of no further use.

    python examples/pickle_deadline.py
"""

from __future__ import annotations

import os
import pickle
import sys

import iocancel


def main() -> int:
    """Run it and show what happened."""
    fd, writer = os.pipe()
    whole, broken = pickle.dumps({"answer": 42}), pickle.dumps(list(range(100)))
    with iocancel.BufferedReader(iocancel.RawFile(fd)) as values:
        os.write(writer, whole + broken[:50])
        with iocancel.fail_after(10):
            print(f"a whole value: {pickle.load(values)}")
        try:
            with iocancel.fail_after(0.1):
                pickle.load(values)
        except TimeoutError as error:
            print(f"half a value: {error}")
    os.close(writer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
