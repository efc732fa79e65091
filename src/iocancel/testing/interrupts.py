"""Ctrl-C everywhere: a call is run again and again, interrupted at one place further each time."""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Places = Literal["signals", "opcodes"]

_CALLS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW")
_GENERATOR = 0x20  # CO_GENERATOR
_HERE = str(Path(__file__).parent) + os.sep  # what stands for a kernel, which nothing interrupts halfway


class Interruption(KeyboardInterrupt):
    """The Ctrl-C that `interrupt_everywhere` sends: a real one goes through."""


class Sweep(NamedTuple):
    """What `interrupt_everywhere` has done."""

    places: int
    """How many places there were."""
    where: tuple[str, ...]
    """Each of those that were interrupted: "entry: core.py:120 in _settle"."""


class Tripwire:
    """Does something at the nth place of this thread's way through chosen modules. A context manager.

    `interrupt_everywhere` runs with it; by itself it is of use to force one thread to stop between two lines.

    Args:
        nth: how many places to let pass.
        modules: modules and packages (or their names, once imported) whose code has places;
            `iocancel.testing` itself has none.
        places: "signals": where CPython runs signals' handlers and switches threads: at the entry of a
            function, behind a call of what is written in C, at a jump backward. "opcodes": before every
            single instruction, which is more than can happen.
        act: what to do there; raises `Interruption` if it is not given.
        spared: names of functions that have no places.
    """

    def __init__(
        self,
        nth: int,
        modules: Sequence[ModuleType | str],
        places: Places = "signals",
        act: Callable[[], object] | None = None,
        spared: Sequence[str] = (),
    ) -> None:
        if places not in ("signals", "opcodes"):
            raise ValueError(f"places takes 'signals' or 'opcodes', not {places!r}")
        self._left = nth
        self._files, self._folders = _sources(modules)
        self._opcodes = places == "opcodes"
        self._act = act
        self._spared = frozenset(spared)
        self.place = ""
        """Where it was, "" while it was nowhere."""
        # The last instruction of each frame. It also keeps them: CPython 3.11 crashes where a frame that is
        # being traced goes while the trace of another one raises.
        self._last: dict[FrameType, str] = {}
        self._returned_to: FrameType | None = None
        self._ours: dict[str, bool] = {}

    def __enter__(self) -> Tripwire:
        """Begin, in this thread."""
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        sys.settrace(self._before)
        self._last.clear()
        self._returned_to = None

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        if self.place or not self._is_ours(frame.f_code.co_filename):
            return None
        frame.f_trace = self._inside  # CPython 3.13 wants it before the next line
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        self._last[frame] = ""
        # A generator that is closed is entered, too, without a look for signals.
        if not self._opcodes and not frame.f_code.co_flags & _GENERATOR:
            self._here(frame, "entry")
        return self._inside

    def _is_ours(self, name: str) -> bool:
        if name not in self._ours:
            ours = name in self._files or name.startswith(self._folders)
            self._ours[name] = ours and not name.startswith(_HERE)
        return self._ours[name]

    def _inside(self, frame: FrameType, event: str, arg: object) -> Any:  # noqa: ARG002
        code = frame.f_code
        if event == "return":
            if not self._opcodes:
                self._last.pop(frame, None)
            if code.co_name != "__init__" and not code.co_flags & _GENERATOR:
                self._returned_to = frame.f_back
        elif event == "opcode":
            if self._opcodes:
                self._here(frame, "")
                return self._inside
            name = _names(code)[frame.f_lasti]
            # The call of a function in Python ends without a look.
            after_c = self._last.get(frame) in _CALLS and self._returned_to is not frame
            self._last[frame], self._returned_to = name, None
            if after_c or "JUMP_BACKWARD" in name:
                self._here(frame, "after a call" if after_c else "jump backward")
        return self._inside

    def _here(self, frame: FrameType, kind: str) -> None:
        code = frame.f_code
        if self.place or code.co_name in self._spared:
            return
        if self._left:
            self._left -= 1
            return
        kind = kind or _names(code)[frame.f_lasti]
        self.place = f"{kind}: {Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
        if self._act is None:
            raise Interruption
        self._act()


def interrupt_everywhere(
    prepare: Callable[[], T],
    run: Callable[[T], object],
    check: Callable[[T, str], object],
    *,
    modules: Sequence[ModuleType | str] = ("iocancel",),
    places: Places = "signals",
    spared: Sequence[str] = (),
    step: int = 1,
) -> Sweep:
    """Run something again and again, with a KeyboardInterrupt one place further each time.

        def check(engine, place):
            engine.close()
            assert engine.in_flight == 0

        sweep = interrupt_everywhere(ScriptedEngine, lambda engine: engine.submit(), check)
        assert sweep.places > 10

    It works in any thread, by `sys.settrace`: a debugger or a coverage tool of this thread rests meanwhile.
    The first run is a rehearsal, since CPython 3.12 and 3.13 show the instructions of a function only when it
    is called after it was first seen.

    Args:
        prepare: makes what each run needs, undisturbed.
        run: what is interrupted, in this thread. It may catch the interrupt.
        check: called after each run, undisturbed, with what `prepare` made and the place of the interrupt:
            a text, "" after the first run and the last one, which were not interrupted. To clean up is its
            work, too.
        modules, places, spared: see `Tripwire`.
        step: look only at every so manieth place.

    Returns:
        How many places there were, and which.

    Raises:
        ValueError: there is no place at all: the modules are not the ones that run.

    What `run` raises beside the interrupt, and what `check` raises, comes through, with a note of the place.
    """
    if step < 1:
        raise ValueError(f"step takes a number >= 1, not {step}")
    where: list[str] = []
    nth, rehearsal = 0, True
    while True:
        thing = prepare()
        wire = Tripwire(sys.maxsize if rehearsal else nth, modules, places, spared=spared)
        collecting = gc.isenabled()
        gc.disable()  # what it would call comes at other places in each run
        try:
            try:
                with wire:
                    run(thing)
            except Interruption:
                pass
            finally:
                if collecting:
                    gc.enable()
            check(thing, wire.place)
        except BaseException as error:
            error.add_note(f"the {nth}th place, {wire.place}" if wire.place else "without an interrupt")
            raise
        if rehearsal:
            rehearsal = False
            continue
        if not wire.place:
            break
        where.append(wire.place)
        nth += step
    if not where:
        raise ValueError("there was no place to interrupt: other modules ran than those that were named")
    return Sweep(nth - wire._left, tuple(where))


@functools.lru_cache(4096)
def _names(code: CodeType) -> dict[int, str]:
    """The names of the instructions, by their offsets."""
    return {each.offset: each.opname for each in dis.get_instructions(code)}


def _sources(modules: Sequence[ModuleType | str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """The files, and the folders (with a separator at the end), of modules and packages."""
    files, folders = set(), []
    for each in modules:
        module = sys.modules[each] if isinstance(each, str) else each
        file = module.__file__
        if file is None:
            raise ValueError(f"{module!r} has no source")
        if hasattr(module, "__path__"):
            folders.append(str(Path(file).parent) + os.sep)
        else:
            files.add(file)
    return frozenset(files), tuple(folders)
