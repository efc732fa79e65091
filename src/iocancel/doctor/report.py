"""What an examination found: `Report`, made of `Finding`s."""

from __future__ import annotations

import dataclasses
import errno
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Literal, TypeVar

from iocancel.doctor.live import NotHere, Overdue, needs
from iocancel.errors import EngineUnavailable, FeatureUnavailable

__all__ = ["Check", "Checks", "Finding", "Reach", "Report", "Seen", "System", "Wrong", "all_found", "found"]

System = Literal["io_uring", "libaio", "posix_aio"]
Reach = Literal["total", "partial", "none"]
_T = TypeVar("_T")
_MEMLOCK = "more memory that may be locked (ulimit -l, LimitMEMLOCK=)"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        system: "io_uring", "libaio" or "posix_aio".
        area: "system", "set-up", "mechanism", "cancel flag", "request" or "opcode"; "engine" and "verb"
            for what `iocancel.open_engine` makes of the system.
        name: what it is; a flag or an opcode by its C name.
        works: whether it works here; None where that could not be found out.
        seen: what was seen, or why it does not work.
        remedy: what would help, "" where nothing is needed or known.
        reach: for a request and for a verb, how far it can be cancelled here: "total": it did not happen;
            "partial": it may have happened in part, and the result says how much; "none": it runs to its own
            end.
    """

    system: System
    area: str
    name: str
    works: bool | None
    seen: str = ""
    remedy: str = ""
    reach: Reach | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Report:
    """What `examine` found out.

    Attributes:
        machine: the kernel, the libraries and the limits, as plain JSON types.
        findings: what was tried, system by system.
    """

    machine: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def systems(self) -> tuple[System, ...]:
        """The systems that work here."""
        return tuple(f.system for f in self.findings if f.area == "system" and f.works)

    def find(self, system: System, name: str) -> Finding | None:
        """What was found out about something.

        Args:
            system: "io_uring", "libaio" or "posix_aio".
            name: the finding's name.

        Returns:
            The finding, or None where nothing of that name was tried, because the system can't be had.
        """
        return self._by_name.get((system, name))

    def works(self, system: System, name: str) -> bool:
        """Whether something was tried here and works; see `find`."""
        finding = self.find(system, name)
        return finding is not None and bool(finding.works)

    def reach(self, system: System, name: str) -> Reach | None:
        """How far a kind of request can be cancelled here; None where it was not tried or does not work.

        Args:
            system: "io_uring", "libaio" or "posix_aio".
            name: the finding's name.
        """
        finding = self.find(system, name)
        return None if finding is None else finding.reach

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return {
            "machine": dict(self.machine),
            "systems": list(self.systems),
            "findings": [finding.as_dict() for finding in self.findings],
        }

    @functools.cached_property
    def _by_name(self) -> dict[tuple[str, str], Finding]:
        return {(f.system, f.name): f for f in reversed(self.findings)}


class Wrong(Exception):
    """Something was taken, and then did not do what it has to; the text says what came instead."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a check saw where it went well.

    Attributes:
        text: for people.
        reach: for a kind of request.
    """

    text: str
    reach: Reach | None = None


@dataclasses.dataclass(frozen=True)
class Check(Generic[_T]):
    """Something to be tried.

    Attributes:
        area, name: as the finding has them.
        since: the first mainline kernel that has it, "" for all.
        try_it: does it, and returns what was seen, or raises.
    """

    area: str
    name: str
    since: str
    try_it: Callable[[_T], Seen]


class Checks(Generic[_T]):
    """Several things to be tried, in their order.

    Args:
        area: as their findings have it.
    """

    def __init__(self, area: str) -> None:
        self.area = area
        self._checks: list[Check[_T]] = []

    def add(self, name: str, since: str = "") -> Callable[[Callable[[_T], Seen]], Callable[[_T], Seen]]:
        """A decorator that adds a function; see `Check`."""

        def take(try_it: Callable[[_T], Seen]) -> Callable[[_T], Seen]:
            self._checks.append(Check(self.area, name, since, try_it))
            return try_it

        return take

    def __iter__(self) -> Iterator[Check[_T]]:
        return iter(self._checks)


def found(system: System, check: Check[_T], stage: _T) -> Finding:
    """Tries something.

    Args:
        system: whose it is.
        check: what to try.
        stage: what to try it with.

    Returns:
        The finding; no exception comes out, but for KeyboardInterrupt and the like.
    """
    make = functools.partial(Finding, system, check.area, check.name)
    kernel = f"Linux {check.since} or later" if check.since else ""
    try:
        seen = check.try_it(stage)
    except EngineUnavailable as error:
        return make(False, error.reason or str(error), error.remedy)
    except FeatureUnavailable as error:
        who = "the C library" if error.since == "glibc" else "this kernel"
        return make(False, f"{who} lacks it", kernel or f"needs {needs(error)}")
    except NotHere as error:
        return make(None, f"could not be tried: needs {error}")
    except (Wrong, Overdue) as error:
        return make(False, str(error), kernel)
    except OSError as error:
        return make(False, f"refused: {error}", _MEMLOCK if error.errno == errno.ENOMEM else kernel)
    except Exception as error:  # noqa: BLE001 - the rest of the report must not be lost
        return make(None, f"a fault of iocancel's own: {type(error).__name__}: {error}", "please report it")
    return make(True, seen.text, "", seen.reach)


def all_found(system: System, checks: Iterable[Check[_T]], stage: _T) -> list[Finding]:
    """Tries several things with the same stage; see `found`."""
    return [found(system, check, stage) for check in checks]
