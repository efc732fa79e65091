"""What has been seen, in counts: by process, mechanism and verdict, with the latencies."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from iocancel.trace.events import Cancel

PERCENTILES = (50, 90, 99, 100)
_DIGITS = 6  # binary ones of a latency that are kept: within 3 %, and few different ones for however many


class Latencies:
    """Latencies, in ns, each within 3 %."""

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()
        self._longest = 0

    def add(self, ns: int) -> None:
        """One more."""
        shift = max(0, ns.bit_length() - _DIGITS)
        self._seen[ns >> shift << shift] += 1
        self._longest = max(self._longest, ns)

    def percentile(self, percent: float) -> int | None:
        """The ns within which so many percent were; None where there was none. The last one is exact."""
        total = self._seen.total()
        if not total:
            return None
        if percent >= 100:
            return self._longest
        left = total * percent / 100
        for ns, many in sorted(self._seen.items()):
            left -= many
            if left <= 0:
                return ns
        return self._longest


class Row:
    """One process's cancels by one mechanism."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.ended = 0
        """How many requests they ended."""
        self.latencies = Latencies()


class Losses(NamedTuple):
    """What is not known, of what was to be seen.

    Attributes:
        events: that the kernel had no room for.
        late: events that came after later ones, so that what they belong to may be told wrongly.
        keys: requests of which eBPF had no room for what they aim at.
        strays: requests that ended as cancelled by nothing that was seen.
    """

    events: int
    late: int
    keys: int
    strays: int


class Summary:
    """Counts cancels."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str, str], Row] = {}
        """By process, its name, and mechanism."""
        self.total = 0

    def add(self, cancel: Cancel) -> None:
        """One more."""
        self.total += 1
        row = self.rows.get(key := (cancel.pid, cancel.comm, cancel.mechanism))
        if row is None:
            row = self.rows[key] = Row()
        row.verdicts[cancel.verdict] += 1
        row.ended += len(cancel.targets)
        if cancel.latency is not None:
            row.latencies.add(cancel.latency)

    def asdict(self, losses: Losses) -> dict[str, Any]:
        """What JSON shows."""
        return {
            "summary": [
                {
                    "pid": pid,
                    "comm": comm,
                    "mechanism": mechanism,
                    "cancels": row.verdicts.total(),
                    "verdicts": dict(row.verdicts),
                    "ended": row.ended,
                    "latency": {f"p{p}": row.latencies.percentile(p) for p in PERCENTILES},
                }
                for (pid, comm, mechanism), row in sorted(self.rows.items())
            ],
            "cancels": self.total,
            "lost_events": losses.events,
            "late_events": losses.late,
            "lost_keys": losses.keys,
            "strays": losses.strays,
        }
