"""The command: arguments, exit status, and what happens when nobody can be told anything."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import __main__, demo, doctor

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iocancel", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, **options)


def test_demo_as_a_process() -> None:
    done = run("demo", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["ok"] is True


def test_standard_output_that_nobody_reads() -> None:
    command = [sys.executable, "-m", "iocancel", "doctor", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(110) == 1


def test_no_standard_output_at_all() -> None:
    script = f'exec "{sys.executable}" -m iocancel demo >&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script], stderr=subprocess.PIPE, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_is_this_function() -> None:
    assert 'iocancel = "iocancel.__main__:main"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("command", ["doctor", "demo"])
@pytest.mark.parametrize("status", [0, 1])
def test_arguments_and_exit_status(command: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def instead(as_json: bool, out: io.TextIOBase) -> int:
        seen.append(as_json)
        return status

    monkeypatch.setattr({"doctor": doctor, "demo": demo}[command], "main", instead)
    assert __main__.main([command]) == status
    assert __main__.main([command, "--json"]) == status
    assert seen == [False, True]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"iocancel {iocancel.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["what"], ["demo", "--what"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        __main__.main(arguments)
    assert end.value.code == 2
    assert "usage: iocancel" in capsys.readouterr().err


def test_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        __main__.main(["demo", "--help"])
    assert "Exit status: 0" in capsys.readouterr().out


class Broken(io.StringIO):
    """What can't be written to; it has no fd either."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [(BrokenPipeError(32, "Broken pipe"), ""), (OSError(28, "No space left on device"), "No space left")],
)
def test_output_that_fails(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "run", lambda: demo.Show((), {"io_uring": "", "libaio": "", "posix_aio": ""}))
    monkeypatch.setattr(sys, "stdout", Broken(error))
    assert __main__.main(["demo"]) == 1
    assert said in capsys.readouterr().err


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(as_json: bool, out: io.TextIOBase) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "main", interrupt)
    assert __main__.main(["demo"]) == 130
