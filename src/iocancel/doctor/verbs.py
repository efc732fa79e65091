"""What each engine can be asked for here, and how far it can be cancelled.

The findings before these are about the systems themselves; these are about `iocancel.open_engine`: an engine
may do in its own way what its system has no request for, and may decline what its system can't cancel.
"""

from __future__ import annotations

from typing import get_args

from iocancel.doctor.report import Finding, Reach, System
from iocancel.engines.auto import engine_class
from iocancel.errors import EngineUnavailable
from iocancel.operation import VERBS

__all__ = ["ENGINE_OF", "found_out"]

ENGINE_OF: dict[System, str] = {"io_uring": "uring", "libaio": "libaio", "posix_aio": "posix_aio"}
"""The engine on each system, as `open_engine` takes it."""


def found_out(system: System) -> list[Finding]:
    """Opens a system's engine and asks it for its verbs.

    Args:
        system: "io_uring", "libaio" or "posix_aio".

    Returns:
        A finding for the engine, and one for each verb, named "engine.read" and so on.
    """
    name = ENGINE_OF[system]
    try:
        engine = engine_class(name)()
    except EngineUnavailable as error:
        return [Finding(system, "engine", f"engine {name}", False, error.reason or str(error), error.remedy)]
    except Exception as error:  # noqa: BLE001 - the rest of the report must not be lost
        why = f"a fault of iocancel's own: {type(error).__name__}: {error}"
        return [Finding(system, "engine", f"engine {name}", None, why, "please report it")]
    with engine:
        reaches: dict[str, Reach | None] = {verb: _reach(engine.reach(verb)) for verb in sorted(VERBS)}
    many = sum(reach is not None for reach in reaches.values())
    first = Finding(system, "engine", f"engine {name}", True, f"{many} of {len(VERBS)} verbs")
    return [first, *(_verb(system, verb, reach) for verb, reach in reaches.items())]


def _verb(system: System, verb: str, reach: Reach | None) -> Finding:
    if reach is None:
        return Finding(system, "verb", f"engine.{verb}", False, "this engine does not have it here")
    return Finding(system, "verb", f"engine.{verb}", True, "as the engine says", "", reach)


def _reach(said: object) -> Reach | None:
    """A reach by its word."""
    found: dict[str, Reach] = {word: word for word in get_args(Reach)}
    return None if said is None else found[str(said)]
