"""What once went wrong with worker threads."""

from __future__ import annotations

import os
import signal

import pytest
import trio

import iocancel.trio as ours


def test_ctrl_c_while_the_thread_looks_for_cancels() -> None:
    """What the thread gets is the Cancelled of a scope inside of `to_thread`: the task must not."""
    seen: list[type[BaseException]] = []

    def looking() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            trio.from_thread.check_cancelled()

    async def main() -> None:
        try:
            await ours.to_thread(looking)
        except BaseException as error:
            seen.append(type(error))
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [KeyboardInterrupt]
