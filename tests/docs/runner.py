"""Run a program of a page, in a process of its own; what to run comes as JSON by standard input."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import sys
import types
from typing import Any

from iocancel.errors import EngineUnavailable, FeatureUnavailable
from iocancel.trace import TracingUnavailable

LACKING = 77


def main() -> int:
    """Run it; exit with 77 where this machine lacks what it needs."""
    told = json.load(sys.stdin)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module  # also for pickle
    if told["world"] == "trio":
        import trio

        run: Any = trio.run
    else:
        run = asyncio.run
    try:
        if told["world"]:
            run(awaited, told, module.__dict__) if told["world"] == "trio" else run(
                awaited(told, module.__dict__)
            )
        else:
            for part in told["parts"]:
                exec(compiled(told["page"], part, 0), module.__dict__)
    except (EngineUnavailable, FeatureUnavailable, TracingUnavailable) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return LACKING
    return 0


async def awaited(told: dict[str, Any], namespace: dict[str, Any]) -> None:
    """Run it in a loop."""
    for part in told["parts"]:
        code = compiled(told["page"], part, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            await types.FunctionType(code, namespace)()
        else:
            exec(code, namespace)


def compiled(page: str, part: dict[str, Any], flags: int) -> types.CodeType:
    """Compile a part, whose lines are the page's."""
    text = "\n" * (part["line"] - 1) + part["code"]
    code: types.CodeType = compile(text, page, "exec", flags, dont_inherit=True)
    return code


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.exit(status)
