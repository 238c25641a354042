"""The program `rectify`: where it is, and how it is run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

from ._error import KINDS, Kind, RectifyError, RectifyWarning

_log = logging.getLogger("rectify_lm")

#: Names the program instead of the one in the wheel.
_ENVIRONMENT = "RECTIFY_PROGRAM"


@cache
def program() -> Path:
    """The program that does the work: the one that `RECTIFY_PROGRAM` names, or the one that was installed with this
    package, or the one on `PATH`.

    Raises:
        RectifyError: When there is none, or it is of another version than this package.
    """
    named = os.environ.get(_ENVIRONMENT)
    if named:
        places = [Path(named)]
    else:
        places = list(_places())
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places)
        raise RectifyError("not_found", f"the program rectify is at none of {looked}; {_ENVIRONMENT} names its place")
    said = subprocess.run([found, "--version"], capture_output=True, encoding="utf-8", check=False).stdout.strip()
    if said.split()[:2] != ["rectify", version("rectify-lm")]:
        expected = version("rectify-lm")
        raise RectifyError("not_found", f"{found} says it is {said!r}; this package needs rectify {expected}")
    return found


def _places() -> Iterator[Path]:
    name = "rectify" + (sysconfig.get_config_var("EXE") or "")
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        yield Path(sysconfig.get_path("scripts", scheme)) / name
    # `pip install --target DIR` puts programs into DIR/bin.
    yield Path(__file__).parents[1] / "bin" / name
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)


def run(arguments: Sequence[str], stdin: str | None = None) -> str:
    """Runs the program to its end and returns what it printed.

    Ctrl-C is forwarded: the program ends what it does in good order, and then `KeyboardInterrupt` is raised.

    Raises:
        Failed: When the program ends with another code than 0.
    """
    command = [str(program()), *arguments, "--messages=json"]
    pipe = subprocess.PIPE
    # In a session of its own, so that a terminal's Ctrl-C comes once: from us.
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace", start_new_session=True
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        messages = _Messages(process.stderr)
        try:
            _feed(process.stdin, stdin)
            printed = process.stdout.read()
            process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            messages.join()
            messages.clear()
    for text in messages.warnings:
        warnings.warn(text, RectifyWarning, stacklevel=_depth())
    if process.returncode != 0:
        raise Failed(messages.failure(process.returncode), printed)
    return printed


class Failed(RectifyError):
    """The program's failure, and what it printed all the same."""

    def __init__(self, failure: RectifyError, output: str) -> None:
        super().__init__(failure.kind, failure.message, failure.field)
        self.output = output


def _depth() -> int:
    """How many calls up the caller of this package is, as `warnings.warn` counts them where this is called."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        frame, depth = frame.f_back, depth + 1
    return depth


def flag(name: str, value: str | os.PathLike[str] | int | float | None) -> list[str]:
    """A flag with its value, whatever that begins with; nothing where the value is absent."""
    if value is None:
        return []
    return [f"--{name}={os.fspath(value) if isinstance(value, os.PathLike) else value}"]


def _feed(stdin: IO[str], text: str | None) -> None:
    try:
        with stdin:
            stdin.write(text or "")
    except BrokenPipeError:
        pass  # It refused before it read, and says why.


def _end(process: subprocess.Popen[str]) -> None:
    """Asks the program to stop, and waits until it has; a second Ctrl-C ends it at once."""
    for _ in range(2):
        if process.poll() is not None:
            return
        if os.name == "posix":
            process.send_signal(signal.SIGINT)
        try:
            process.wait()
            return
        except KeyboardInterrupt:
            continue
    process.kill()


class _Messages(threading.Thread):
    """What the program says on stderr, an object a line: shown, noted, or kept."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(name="rectify", daemon=True)
        self._stream = stream
        self._shows = sys.stderr is not None and sys.stderr.isatty()
        self._shown = False
        self._failure: dict[str, Any] | None = None
        self._other: list[str] = []
        self.warnings: list[str] = []
        self.start()

    def run(self) -> None:
        for line in self._stream:
            try:
                [(what, value)] = json.loads(line).items()
            except (ValueError, AttributeError):
                self._other.append(line)  # What the parser of arguments complains of, or a panic.
                continue
            self._take(what, value)

    def _take(self, what: str, value: Any) -> None:
        if what == "progress":
            self._show(f"{value['text']}: {value['done']} of {value['total']}")
        elif what == "warning":
            self.warnings.append(value)
        elif what == "failure":
            self._failure = value
        else:
            _log.info(value)

    def _show(self, text: str) -> None:
        if self._shows:
            self._shown = True
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Takes the line of progress away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def failure(self, code: int) -> RectifyError:
        """Why the program ended with this code."""
        if self._failure is not None:
            kind = self._failure["kind"]
            known = cast(Kind, kind if kind in KINDS else "internal")
            return RectifyError(known, self._failure["message"], self._failure.get("field"))
        kinds: dict[int, Kind] = {2: "bad_input", 75: "unfinished", 130: "cancelled"}
        said = "".join(self._other).strip().removeprefix("error: ")
        return RectifyError(kinds.get(code, "internal"), said or f"the program ended with {code} and said nothing")
