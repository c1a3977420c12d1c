"""Many requests from a file: `python -m chatgptlib batch IN.jsonl OUT.jsonl -j 8`.

Each line in is a prompt, as plain or as JSON text, or a request: a JSON object with
`messages`, or such an object as the `body` beside a `custom_id`, as OpenAI's own batches
have it. Each line out has the line's id (`custom_id`, `id`, or its number), a mark of its
text, and a `response` or an `error`. Answers are written as they come, in any order.

It may be stopped and started again at any time: an id that stands in OUT is done, with
an error too; take its line out of OUT to have it asked again. A line that was being
written when the process died is taken out, and asked again.
https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from ..chat import create_chat_completion
from ..client import OpenAIClient
from ..errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    HTTPError,
    JSONValue,
    OpenAIError,
    PermissionDeniedError,
    QuotaExceededError,
    excerpt,
)

_WAIT_SECONDS = 0.5


@dataclass
class BatchResult:
    """What came of a batch: how many lines there were, and what became of them."""

    lines: int = 0
    answered: int = 0
    errors: int = 0
    done_before: int = 0
    errors_before: int = 0
    unreadable: list[str] = field(default_factory=list[str])  # each with its number
    unanswered: list[str] = field(default_factory=list[str])  # each with its id; asked next time

    @property
    def done(self) -> int:
        """How many lines have an answer or an error by now."""
        return self.answered + self.errors + self.done_before

    @property
    def is_clean(self) -> bool:
        """Every line has an answer."""
        return not (self.errors or self.errors_before or self.unreadable or self.unanswered)

    def __str__(self) -> str:
        told = f"{self.lines} lines: {self.answered} answered, {self.errors} errors"
        if self.done_before:
            told += f", {self.done_before} done before"
        if self.errors_before:
            told += f" (of them {self.errors_before} errors)"
        if self.unreadable:
            told += f", {len(self.unreadable)} unreadable"
        if self.unanswered:
            told += f", {len(self.unanswered)} not asked to the end"
        return told


def run_batch(
    client: OpenAIClient,
    source: Path,
    target: Path,
    *,
    defaults: Mapping[str, Any],
    system: str | None = None,
    jobs: int = 4,
    result: BatchResult | None = None,
    progress: Callable[[BatchResult], object] = lambda result: None,
    stopping: Callable[[int], object] = lambda running: None,
) -> BatchResult:
    """Ask for every line of `source` that is not done in `target`, `jobs` at a time.

    `defaults` are parameters for requests that do not have them; `system` stands before
    prompts. `result` is kept up to date; `progress` is told of each line that is done.
    At Ctrl-C it asks no more, and waits for the answers on their way; `stopping` is told how
    many. At a second it leaves at once, and these are asked again the next time.

    A line that no answer came for is not written, and is asked the next time.

    Raises ConfigError for files that can't be used, and what would meet every line: a key
    that is refused, a server that is not there.
    """
    if jobs < 1:
        raise ConfigError(f"-j must be 1 or more, not {jobs}")
    result = result or BatchResult()
    with closing(_Output(source, target)) as output:
        result.errors_before = output.errors
        batch = _Batch(client, output, result, jobs, progress)
        try:
            for line in _requests(source, defaults, system, result):
                batch.ask(line)
            batch.finish()
        except KeyboardInterrupt:
            stopping(batch.cancel())
            batch.finish()  # what is being answered will be paid for
            raise
        except OpenAIError:
            batch.cancel()
            batch.finish(giving_up=True)
            raise
        finally:
            batch.leave()
    return result


class _Batch:
    """The lines that are being asked, and where their answers go."""

    def __init__(
        self,
        client: OpenAIClient,
        output: _Output,
        result: BatchResult,
        jobs: int,
        progress: Callable[[BatchResult], object],
    ) -> None:
        self._client, self._output, self._result = client, output, result
        self._jobs, self._progress = jobs, progress
        self._pool = ThreadPoolExecutor(jobs)
        self._waiting: dict[Future[dict[str, Any]], _Line] = {}
        self._failed_in_a_row = 0

    def ask(self, line: _Line) -> None:
        """Have a line asked, unless it is done."""
        before = self._output.done.get(line.id)
        if before is not None:
            if before not in ("", line.mark):
                self._result.unreadable.append(
                    f"line {line.number}: another line was answered under its id {line.id!r}"
                )
            else:
                self._result.done_before += 1
            return
        with _undisturbed():
            self._waiting[self._pool.submit(_outcome, self._client, line.body)] = line
        if len(self._waiting) >= 2 * self._jobs:  # one at work and one at hand for each thread
            self._write_some()

    def finish(self, *, giving_up: bool = False) -> None:
        """Write down all answers that are still to come."""
        while self._waiting:
            self._write_some(giving_up=giving_up)

    def cancel(self) -> int:
        """Ask no more; how many answers are still to come."""
        self._waiting = {one: line for one, line in self._waiting.items() if not one.cancel()}
        return len(self._waiting)

    def leave(self) -> None:
        """Let go of the threads, without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _write_some(self, *, giving_up: bool = False) -> None:
        """Wait for the next answers and write them down."""
        # Python does not notice a Ctrl-C that comes just before it begins to wait.
        while not wait(self._waiting, _WAIT_SECONDS, return_when=FIRST_COMPLETED).done:
            pass
        for future in [one for one in self._waiting if one.done()]:  # in their order
            with _undisturbed():
                self._take(future, giving_up)

    def _take(self, future: Future[dict[str, Any]], giving_up: bool) -> None:
        line = self._waiting.pop(future)
        error = future.exception()
        if error is None:
            self._write(line, future.result())
        elif giving_up and isinstance(error, OpenAIError):
            self._result.unanswered.append(f"id {line.id!r}: {error}")
        elif isinstance(error, HTTPError):
            self._note_unanswered(line, error)
        else:
            raise error

    def _write(self, line: _Line, outcome: dict[str, Any]) -> None:
        self._failed_in_a_row = 0
        self._output.write({"id": line.id, "line": line.mark, **outcome})
        if "response" in outcome:
            self._result.answered += 1
        else:
            self._result.errors += 1
        self._progress(self._result)

    def _note_unanswered(self, line: _Line, error: HTTPError) -> None:
        """One line may be what a server can't bear; several one after the other mean that
        nobody is there."""
        self._result.unanswered.append(f"id {line.id!r}: {error}")
        self._failed_in_a_row += 1
        if self._failed_in_a_row > self._jobs:
            raise error


@contextmanager
def _undisturbed() -> Generator[None, None, None]:
    """Hold Ctrl-C back for as long as it takes, or an answer that was paid for would be
    neither written nor waited for."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            handler(*held[0])


def _outcome(client: OpenAIClient, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"response": create_chat_completion(client, body, into=dict)}
    except (AuthenticationError, PermissionDeniedError, QuotaExceededError):
        raise  # which the next line would meet too
    except OpenAIError as error:
        if isinstance(error, HTTPError) and error.may_retry:
            raise
        return {"error": _told_error(error)}


def _told_error(error: OpenAIError) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, APIError):
        told |= {"status_code": error.status_code, "code": error.code, "body": error.body}
    if error.request_id:
        told["request_id"] = error.request_id
    return told


# What comes in


class _Line(NamedTuple):
    number: int
    id: str | int
    mark: str  # of its text, to know it again
    body: dict[str, Any]


def _requests(
    source: Path, defaults: Mapping[str, Any], system: str | None, result: BatchResult
) -> Iterator[_Line]:
    """The readable lines; the others are noted in `result`."""
    from hashlib import sha256

    number_of: dict[str | int, int] = {}
    for number, text in numbered_lines(source):
        result.lines += 1
        try:
            mark = sha256(text.encode("utf-8")).hexdigest()[:16]
            line_id, body = _request(number, text, system)
            before = number_of.setdefault(line_id, number)
            if before != number:
                raise ValueError(f"its id {line_id!r} is that of line {before}")
        except UnicodeEncodeError:
            result.unreadable.append(f"line {number}: not UTF-8")
        except ValueError as error:
            result.unreadable.append(f"line {number}: {error}")
        else:
            yield _Line(number, line_id, mark, {**defaults, **body})


def numbered_lines(source: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold something, with their numbers."""
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if text := line.strip():
                    yield number, text
    except OSError as error:
        raise ConfigError(f"cannot read {str(source)!r}: {error.strerror}") from error


def _request(number: int, text: str, system: str | None) -> tuple[str | int, dict[str, Any]]:
    """The id and body that a line says. Raises ValueError for what it can't mean."""
    value: JSONValue = text
    if text[0] in '{["':
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            if text[0] == "{":  # else it is a prompt that begins so
                raise ValueError(f"no JSON: {error}: {excerpt(text[:80])}") from None
    if isinstance(value, str):
        said = [{"role": "user", "content": value}]
        return number, {
            "messages": [{"role": "system", "content": system}, *said] if system else said
        }
    if not isinstance(value, dict):
        raise ValueError(f"a request is a JSON object, not a {type(value).__name__}")
    line_id = value.get("custom_id", value.get("id", number))
    body = value.get("body", {k: v for k, v in value.items() if k not in ("custom_id", "id")})
    if isinstance(line_id, bool) or not isinstance(line_id, (str, int)):
        raise ValueError(f"an id is text or a number, not {json.dumps(line_id)}")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        raise ValueError("a request has messages: a list")
    if body.pop("stream", None):
        raise ValueError("a batch has no streams")
    return line_id, body


# What goes out


class _Output:
    """The file of answers: what is done in it, and a place at its end to write to."""

    def __init__(self, source: Path, target: Path) -> None:
        self.done: dict[str | int, str] = {}  # ids, and the marks of their lines
        self.errors = 0
        self._name = str(target)
        try:
            if target.exists() and not target.is_file():
                raise ConfigError(f"{self._name!r} is no file: answers are read back from it")
            if target.exists() and source.exists() and target.samefile(source):
                raise ConfigError(f"{self._name!r} is read from: write to another file")
            self._file = open(target, "ab+", buffering=0)  # noqa: SIM115  (until close)
        except OSError as error:
            raise ConfigError(f"cannot write {self._name!r}: {error.strerror}") from error
        try:
            _lock(self._file, target)
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> None:
        """Note what is done."""
        with open(self._name, "rb") as lines:
            whole, line = 0, b""
            for number, line in enumerate(lines, 1):
                if self._note(line):
                    whole += len(line)
                elif not line.endswith(b"\n") and _may_be_torn(line):
                    self._file.truncate(whole)  # it was being written when the process died
                    return
                else:
                    raise ConfigError(
                        f"{self._name!r} is no output of a batch (line {number}): give another file"
                    )
            if whole and not line.endswith(b"\n"):
                self._put(b"\n")

    def _note(self, line: bytes) -> bool:
        """Whether this is a line of ours."""
        try:
            told = json.loads(line)
            if not ("response" in told or "error" in told):
                return False
            self.done[told["id"]] = str(told.get("line", ""))
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        self.errors += "error" in told
        return True

    def write(self, told: dict[str, Any]) -> None:
        """Add a line: it is in the file, whatever becomes of this process, or not at all."""
        self._put(json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def _put(self, line: bytes) -> None:
        before = self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(before)  # or the next line would go on where this one broke off
            raise ConfigError(f"cannot write {self._name!r}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


def _may_be_torn(line: bytes) -> bool:
    """It begins as our lines do: anything else is somebody's who has no line ends."""
    begin = b'{"id": '
    return line[: len(begin)] == begin[: len(line)]


def _lock(file: Any, target: Path) -> None:
    """Two batches on one file would ask all the rest twice."""
    try:
        import fcntl
    except ImportError:
        return  # Windows
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"another batch is writing {str(target)!r}") from None


# What a person sees


def progress_shown(source: Path) -> Callable[[BatchResult], object]:
    """Shows on a terminal how far it is; elsewhere nothing."""
    if not sys.stderr.isatty() or not source.is_file():  # what is piped in can be read but once
        return lambda result: None
    total = sum(1 for _ in numbered_lines(source))
    try:
        bar: Any = import_module("tqdm").tqdm(total=total, unit="line")
    except ImportError:

        def count(result: BatchResult) -> None:
            print(
                f"\r{result.done}/{total}, {result.errors} errors ",
                end="",
                file=sys.stderr,
                flush=True,
            )

        return count

    def move(result: BatchResult) -> None:
        bar.update(result.done - bar.n)
        if result.done == total:
            bar.close()

    return move
