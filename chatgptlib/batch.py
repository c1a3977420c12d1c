"""Many requests from a file: `python -m chatgptlib batch IN.jsonl OUT.jsonl -j 8`.

Each line in is a prompt, as plain or as JSON text, or a request: a JSON object with
`messages`, or such an object as the `body` beside a `custom_id`, as OpenAI's own batches
have it. Each line out has the line's id (`custom_id`, `id`, or its number) and a
`response` or an `error`. Answers are written as they come, in any order.

It may be stopped and started again at any time: an id that stands in OUT is done. A line
that was being written when the process died is taken out, and asked again.
https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from .chat import create_chat_completion
from .client import OpenAIClient
from .errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    HTTPError,
    OpenAIError,
    PermissionDeniedError,
    QuotaExceededError,
    excerpt,
)


def _is_fatal(error: BaseException) -> bool:
    """What the next line would meet too: the key is refused, or nobody is there."""
    refused = (AuthenticationError, PermissionDeniedError, QuotaExceededError)
    return isinstance(error, refused) or (isinstance(error, HTTPError) and error.may_retry)


@dataclass
class BatchResult:
    """What came of a batch: how many lines there were, and what became of them."""

    lines: int = 0
    answered: int = 0
    errors: int = 0
    done_before: int = 0
    unreadable: list[str] = field(default_factory=list)  # each with its number

    def __str__(self) -> str:
        told = f"{self.lines} lines: {self.answered} answered, {self.errors} errors"
        if self.done_before:
            told += f", {self.done_before} done before"
        if self.unreadable:
            told += f", {len(self.unreadable)} unreadable"
        return told


def run_batch(
    client: OpenAIClient,
    source: Path,
    target: Path,
    *,
    defaults: Mapping[str, Any],
    system: str | None = None,
    jobs: int = 4,
    progress: Callable[[BatchResult], object] = lambda result: None,
) -> BatchResult:
    """Ask for every line of `source` that is not done in `target`, `jobs` at a time.

    `defaults` are parameters for requests that do not have them; `system` stands before
    prompts. `progress` is told of each line that is done.

    Raises ConfigError for files that can't be used, and what would meet every line: a key
    that is refused, a server that is not there. Such lines are not written, and are asked
    the next time.
    """
    if jobs < 1:
        raise ConfigError(f"-j must be 1 or more, not {jobs}")
    result = BatchResult()
    with closing(_Output(source, target)) as output, ThreadPoolExecutor(jobs) as pool:
        waiting: dict[Future[dict[str, Any]], str | int] = {}
        try:
            for line_id, body in _requests(source, defaults, system, result):
                if line_id in output.done:
                    result.done_before += 1
                    continue
                waiting[pool.submit(_asked, client, body)] = line_id
                if len(waiting) >= 2 * jobs:  # one at work and one at hand for each thread
                    _write_some(waiting, output, result, progress)
            while waiting:
                _write_some(waiting, output, result, progress)
        except BaseException:  # Ctrl-C, or a key that is refused
            for future in waiting:
                future.cancel()
            # What is being answered will be paid for: it is written down before we leave.
            while running := {one: waiting[one] for one in waiting if not one.cancelled()}:
                waiting = running
                _write_some(waiting, output, result, progress, fatal=False)
            raise
    return result


def _asked(client: OpenAIClient, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"response": create_chat_completion(client, body, into=dict)}
    except OpenAIError as error:
        if _is_fatal(error):
            raise
        return {"error": _as_json(error)}


def _as_json(error: OpenAIError) -> dict[str, Any]:
    told: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, APIError):
        told |= {"status_code": error.status_code, "code": error.code, "body": error.body}
    if error.request_id:
        told["request_id"] = error.request_id
    return told


def _write_some(
    waiting: dict[Future[dict[str, Any]], str | int],
    output: _Output,
    result: BatchResult,
    progress: Callable[[BatchResult], object],
    *,
    fatal: bool = True,
) -> None:
    """Wait for the next answers and write them down."""
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        line_id = waiting.pop(future)
        if error := future.exception():
            if fatal or not _is_fatal(error):
                raise error
            continue
        outcome = future.result()
        output.write({"id": line_id, **outcome})
        if "response" in outcome:
            result.answered += 1
        else:
            result.errors += 1
        progress(result)


# What comes in


def _requests(
    source: Path, defaults: Mapping[str, Any], system: str | None, result: BatchResult
) -> Iterator[tuple[str | int, dict[str, Any]]]:
    """The id and body of each readable line; the others are noted in `result`."""
    number_of: dict[str | int, int] = {}
    for number, text in numbered_lines(source):
        result.lines += 1
        try:
            line_id, body = _request(number, text, system)
            before = number_of.setdefault(line_id, number)
            if before != number:
                raise ValueError(f"its id {line_id!r} is that of line {before}")
        except ValueError as error:
            result.unreadable.append(f"line {number}: {error}")
            continue
        yield line_id, {**defaults, **body}


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
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("not UTF-8") from None
    value: Any = text
    if text[0] in '{["':
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
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
        self.done: set[str | int] = set()
        try:
            if target.exists() and source.exists() and target.samefile(source):
                raise ConfigError(f"{str(target)!r} is read from: write to another file")
            self._file = open(target, "ab+")  # noqa: SIM115  (until close)
        except OSError as error:
            raise ConfigError(f"cannot write {str(target)!r}: {error.strerror}") from error
        try:
            _lock(self._file, target)
            self._read(target)
        except BaseException:
            self._file.close()
            raise

    def _read(self, target: Path) -> None:
        """Note what is done. A last line without an end was cut off: it is taken away."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                self._file.truncate(whole)
                break
            whole += len(line)
            try:
                told = json.loads(line)
                if not ("response" in told or "error" in told):
                    raise ValueError
                self.done.add(told["id"])
            except (ValueError, TypeError, KeyError):
                raise ConfigError(
                    f"{str(target)!r} is no output of a batch (line {number}): give another file"
                ) from None

    def write(self, told: dict[str, Any]) -> None:
        """Add a line: it is in the file, whatever becomes of this process, or not at all."""
        line = json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace")
        try:
            self._file.write(line + b"\n")
            self._file.flush()
        except OSError as error:
            raise ConfigError(f"cannot write {self._file.name!r}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


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


def progress_shown(total: int) -> Callable[[BatchResult], object]:
    """Shows on a terminal how far it is; elsewhere nothing."""
    if not sys.stderr.isatty():
        return lambda result: None
    try:
        bar: Any = import_module("tqdm").tqdm(total=total, unit="line")
    except ImportError:

        def count(result: BatchResult) -> None:
            done = result.answered + result.errors + result.done_before
            print(f"\r{done}/{total}, {result.errors} errors ", end="", file=sys.stderr, flush=True)

        return count

    def move(result: BatchResult) -> None:
        done = result.answered + result.errors + result.done_before
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return move
