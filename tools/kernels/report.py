"""Read pytest's JUnit report of a guest, and say what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from tools.kernels.boot import Run


@dataclass
class Result:
    """The suite under one kernel. `broken` says why the run as a whole is no good, if it is not."""

    kernel: str
    seconds: float = 0.0
    passed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    broken: str = ""
    log: str = ""

    @property
    def good(self) -> bool:
        """Whether every test passed or was skipped."""
        return not self.failed and not self.broken

    def lines(self) -> list[str]:
        """Return the result for people, a line each."""
        counts = f"{self.passed} passed, {self.skipped.total()} skipped, {len(self.failed)} failed"
        lines = [f"{self.kernel}: {counts} in {self.seconds:.0f} s"]
        lines += [f"  {count:4} skipped: {reason}" for reason, count in self.skipped.most_common()]
        lines += [f"  failed: {test}: {why}" for test, why in self.failed.items()]
        if self.broken:
            lines.append(f"  {self.broken}")
        if not self.good and self.log:
            lines.append(f"  more in {self.log}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "kernel": self.kernel,
            "good": self.good,
            "seconds": round(self.seconds, 1),
            "passed": self.passed,
            "skipped": dict(self.skipped),
            "failed": self.failed,
            "broken": self.broken,
        }


def judge(kernel: str, run: Run) -> Result:
    """Make a result of a run."""
    result = Result(kernel, run.seconds)
    if run.report:
        count(result, run.report)
    if run.timed_out:
        tests = [line.strip() for line in run.output.splitlines() if "::" in line]
        result.broken = f"hung: stopped by the time limit at {tests[-1] if tests else 'its start'}"
    elif "guest: ready" not in run.console:
        result.broken = "the guest did not come up"
    elif run.status is None:
        result.broken = "the kernel died"
    # 1: tests failed, which the report tells better. 5: no test was selected.
    elif run.status not in (0, 1) or not run.report:
        result.broken = f"pytest ended with {run.status}"
    elif run.status == 1 and not result.failed:
        result.broken = "pytest says that tests failed, its report does not"
    return result


def count(result: Result, report: bytes) -> None:
    """Add up what the report says."""
    try:
        root = ElementTree.fromstring(report)
    except ElementTree.ParseError as error:
        result.broken = f"the report does not parse: {error}"
        return
    for case in root.iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        problem = next((child for tag in ("failure", "error") for child in case.iter(tag)), None)
        skip = case.find("skipped")
        if problem is not None:
            result.failed[name] = (problem.get("message") or "").partition("\n")[0][:200]
        elif skip is not None:
            result.skipped[skip.get("message") or "no reason given"] += 1
        else:
            result.passed += 1
