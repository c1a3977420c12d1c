"""The files of a batch: requests in, in several formats, and answers out.

IN holds a prompt or a request on each line, a JSON array of them, or a table (CSV, TSV) whose
rows fill in a prompt. OUT has a line of JSON for each: its `id`, a mark of what was asked
(`line`), and a `response` or an `error`; or the same as OpenAI's own batches write it. Of
several lines in OUT with the same id the last one counts.
https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, DeserializeError, JSONValue, OpenAIError, excerpt
from ..models import CreateChatCompletionResponse
from ..replies import parsed

_ENCODINGS = {  # by the byte order mark; that of UTF-32 begins as that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CUT = {"length": "cut off", "content_filter": "filtered"}  # outcomes, by the finish reason
_OPENAI_ID = "batch_req_"  # our mark follows, where OpenAI has a number


# Requests in


class BatchLine(NamedTuple):
    """One request of IN."""

    id: str | int
    mark: str  # of the line itself, a hyphen, and of the request with all its options
    body: dict[str, Any]


def read_requests(options: argparse.Namespace) -> tuple[list[BatchLine], list[str]]:
    """The requests of IN, and what is wrong with the lines that hold none.

    Raises ConfigError for a file that can't be read, or is as a whole not what it seems.
    """
    source, name = options.source, "stdin" if options.source == "-" else repr(options.source)
    text = _text_of(source, name)
    begin = text.lstrip()[:1]
    array: JSONValue = parsed(text)[0] if begin == "[" else None
    if source.lower().endswith((".csv", ".tsv")) or (options.prompt and begin not in ("{", "[")):
        unit, records = "row", _rows(text, name)
    elif isinstance(array, list):
        unit, records = "item", enumerate(array, 1)
    else:
        unit, records = "line", _values(text, name)
    number_of: dict[str, int] = {}
    lines: list[BatchLine] = []
    unreadable: list[str] = []
    for number, value in records:
        try:
            line = _line(number, value, options)
            if (before := number_of.setdefault(str(line.id), number)) != number:
                raise ValueError(f"its id {line.id!r} is that of {unit} {before}")
            lines.append(line)
        except ValueError as error:
            unreadable.append(f"{unit} {number}: {error}")
    return lines, unreadable


def _text_of(source: str, name: str) -> str:
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            data = file.read()
        encodings = (_ENCODINGS[mark] for mark in _ENCODINGS if data.startswith(mark))
        text = data.decode(next(encodings, "utf-8-sig"), "surrogateescape")
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is damaged: {error}") from error
    if "\0" in text:
        raise ConfigError(
            f"{name} holds NUL bytes, so it is not text, or in an encoding that its first bytes "
            "do not tell: save it as UTF-8"
        )
    return text


def _values(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """The prompts and requests by line; an error in place of what can't be read."""
    unclosed = ""  # JSON that has not ended with its line
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if not line:
            continue
        value: Any = line
        error: Exception | None = None
        if line[0] in '{["':
            value, error = parsed(line)
        if unclosed and _is_begun(f"{unclosed}\n{line}"):
            raise ConfigError(
                f"{name}: JSON goes on from the line before into line {number}: put each request "
                "on a line of its own, as jq -c . does, or all of them into one array"
            )
        unclosed = line if error and _is_begun(line) else ""
        if not line.isascii() and re.search("[\udc80-\udcff]", line):
            value = ValueError("not UTF-8")
        elif error and line[0] == "{":
            value = ValueError(f"no JSON: {error}: {excerpt(line[:80])}")
        elif error:  # a prompt that begins so
            value = line
        yield number, value


def _rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    import csv

    csv.field_size_limit(2**31 - 1)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # some spreadsheets write semicolons
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [column.strip() for column in next(rows, "")]
        for number, row in enumerate((row for row in rows if row), 1):
            value = dict(zip(columns, row, strict=False))
            fits = len(row) == len(columns) == len(value)
            yield number, value if fits else ValueError(f"not a field for each of {columns}")
    except csv.Error as error:
        raise ConfigError(f"{name} is not a whole table: {error}") from error


def _line(number: int, value: JSONValue | ValueError, options: argparse.Namespace) -> BatchLine:
    if isinstance(value, ValueError):
        raise value
    line_id: JSONValue = number
    if isinstance(value, dict):
        line_id = value.get("custom_id", value.get("id", number))
    if isinstance(line_id, bool) or not isinstance(line_id, (str, int)) or line_id == "":
        raise ValueError(f"an id is text or a number, not {json.dumps(line_id)}")
    body: dict[str, Any] = {**options.defaults, **_body(value, options.prompt)}
    if options.system and not any(map(_instructs, body["messages"])):
        body["messages"] = [{"role": "system", "content": options.system}, *body["messages"]]
    return BatchLine(line_id, f"{_mark(value)}-{_mark(body)}", body)


def _body(value: JSONValue, template: str | None) -> dict[str, Any]:
    """The request that a value stands for. Raises ValueError if it stands for none."""
    if isinstance(value, dict):
        body = value.get("body", {k: value[k] for k in value if k not in ("custom_id", "id")})
        if isinstance(body, dict) and isinstance(body.get("messages"), list):
            if body.pop("stream", None):
                raise ValueError("a batch has no streams")
            return body
        if template is None:
            raise ValueError("a request has messages: a list (or give --prompt 'Label: {name}')")
        value = _filled(template, value)
    elif template is not None:
        raise ValueError("--prompt is for rows and JSON objects")
    if not isinstance(value, str):
        raise ValueError(f"a request is a JSON object, not a {type(value).__name__}")
    return {"messages": [{"role": "user", "content": value}]}


def _filled(template: str, record: Mapping[str, JSONValue]) -> str:
    """The prompt for a record. Braces around what is no name stand for themselves."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in record:
            raise ValueError(f"--prompt has {match[0]}, but the names are {', '.join(record)}")
        value = record[match[1]]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    prompt, count = re.subn(r'\{([^{}":,]+)\}', value_of, template)
    if not count:
        raise ValueError("--prompt has no {name} in it: all requests would be the same")
    return prompt


def _instructs(message: JSONValue) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _mark(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _is_begun(text: str) -> bool:
    """Whether this is JSON, or would be if it went on."""
    _, error = parsed(text)
    return error is None or (isinstance(error, json.JSONDecodeError) and error.pos >= len(text))


# Answers out


class BatchOutput:
    """The file of answers: what is done in it, and a place at its end for more.

    "-" is stdout, where nothing is known of earlier runs.

    Raises ConfigError for a file that can't be written.
    """

    def __init__(self, target: str, openai_format: bool) -> None:
        self.done: dict[str, tuple[str, str]] = {}  # mark and outcome, by id
        self.tokens: Counter[str] = Counter()  # of all answers; "untold": answers without
        self.is_file = target != "-"
        self._name = repr(target) if self.is_file else "stdout"
        self._path = os.path.realpath(target)
        self._openai_format = openai_format
        self._has_old_lines = False
        try:
            if self.is_file:
                self._file = io.FileIO(self._path, "ab+", opener=_private)
            else:
                self._file = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
        except OSError as error:
            raise ConfigError(f"cannot write {self._name}: {error.strerror}") from error

    def read(self) -> None:
        """Note what is done. Raises ConfigError for a file that is not a batch's."""
        if not self.is_file:
            return
        _lock(self._file, self._name)
        whole, line = 0, b""
        with open(self._path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                told, error = parsed(line)
                if self._note(told):
                    whole += len(line)
                elif error and line[:7] == b'{"id": '[: len(line)] and not line.endswith(b"\n"):
                    self._file.truncate(whole)  # it was being written when the process died
                    return
                else:
                    raise ConfigError(
                        f"{self._name} is no output of a batch (line {number}): name another file"
                    )
        if line and not line.endswith(b"\n"):
            self._append(b"\n")

    def _note(self, told: JSONValue) -> str | None:
        """Note what a line tells; its outcome, or None if it is not a batch's."""
        found = _answer_in(told)
        if found is None:
            return None
        line_id, mark, response = found
        outcome = self._outcome(response) if isinstance(response, dict) else "errors"
        self._has_old_lines |= line_id in self.done
        self.done[line_id] = mark, outcome
        return outcome

    def _outcome(self, response: Mapping[str, Any]) -> str:
        """How an answer ended; its tokens are added up."""
        try:
            answer = CreateChatCompletionResponse.from_dict(response)
        except DeserializeError:  # it is an answer all the same
            answer = CreateChatCompletionResponse([])
        usage, tokens = answer.usage, self.tokens
        if usage is None:
            tokens["untold"] += 1
        else:
            details = usage.prompt_tokens_details
            tokens["prompt"] += usage.prompt_tokens or 0
            tokens["cached"] += (details and details.cached_tokens) or 0
            tokens["completion"] += usage.completion_tokens or 0
        reasons = [choice.finish_reason for choice in answer.choices]
        return next((_CUT[reason] for reason in _CUT if reason in reasons), "answered")

    def write(self, line: BatchLine, result: dict[str, Any] | OpenAIError) -> str:
        """Add an answer or an error; its outcome. It is in the file, whatever comes then."""
        record = _record(line, result, self._openai_format)
        text = json.dumps(record, ensure_ascii=self._file.isatty())  # which it can't steer then
        self._check_place()
        self._append(text.encode("utf-8", "backslashreplace") + b"\n")
        return self._note(record) or "errors"

    def _append(self, data: bytes) -> None:
        start = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except BrokenPipeError:
            raise  # whoever read stdout has stopped
        except OSError as error:
            if self.is_file:  # or the next line would go on where this one broke off
                self._file.truncate(start)
            raise ConfigError(f"cannot write {self._name}: {error.strerror}") from error

    def _check_place(self) -> None:
        """Raise ConfigError if the file is no longer where others would look for it."""
        try:
            is_here = not self.is_file or os.path.samefile(self._path, self._file.fileno())
        except OSError:
            is_here = False
        if not is_here:
            raise ConfigError(
                f"{self._name} was moved, removed or replaced while it was written, and lacks "
                "answers: put it back, and start again"
            )

    def finish(self, order: Sequence[BatchLine]) -> None:
        """Leave the last line of each id alone, in this order if there is one."""
        self._check_place()
        if not self.is_file or not (order or self._has_old_lines):
            return
        with open(self._path, "rb") as lines:
            last = {found[0]: line for line in lines if (found := _answer_in(parsed(line)[0]))}
        wanted = [last.pop(str(line.id), b"") for line in order]
        new = f"{self._path}.{os.getpid()}"
        try:
            with open(new, "xb", opener=_private) as file:
                file.writelines([*wanted, *last.values()])
            os.chmod(new, os.stat(self._path).st_mode)
            self._file.close()  # else Windows does not replace it
            os.replace(new, self._path)  # at once: nothing is lost on the way
        except OSError as error:
            raise ConfigError(f"cannot sort {self._name}: {error.strerror}") from error
        finally:
            Path(new).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another batch write the file."""
        self._file.close()


def _answer_in(told: JSONValue) -> tuple[str, str, JSONValue] | None:
    """Id, mark and response of a line in either format; None if it is not a batch's.

    The mark is "" if nothing tells what was asked, the response None if there is none.
    """
    if not isinstance(told, dict) or not {"response", "error"} & told.keys():
        return None
    line_id, mark, response = told.get("id"), str(told.get("line", "")), told.get("response")
    if "custom_id" in told:
        line_id, mark = told["custom_id"], str(line_id).removeprefix(_OPENAI_ID)
        if isinstance(response, dict):
            response = response.get("body") if response.get("status_code") == 200 else None
    if not isinstance(line_id, (str, int)):
        return None
    return str(line_id), mark if "-" in mark else "", response


def _record(
    line: BatchLine, result: dict[str, Any] | OpenAIError, openai_format: bool
) -> dict[str, Any]:
    """What is written of an answer or an error."""
    error: dict[str, Any] | None = None
    if isinstance(result, OpenAIError):
        error = {"type": type(result).__name__, "message": str(result)}
        for name in ("status_code", "code", "body", "request_id"):
            error[name] = getattr(result, name, None)
    if not openai_format:
        ending = {"error": error} if error else {"response": result}
        return {"id": line.id, "line": line.mark, **ending}
    return {
        "id": f"{_OPENAI_ID}{line.mark}",
        "custom_id": str(line.id),
        "response": None if error else {"status_code": 200, "request_id": None, "body": result},
        "error": error,
    }


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # what people ask is for nobody else to read


def _lock(file: io.FileIO, name: str) -> None:
    """Two batches on one file would ask all the rest twice."""
    try:
        import fcntl
    except ImportError:
        return  # Windows
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"another batch is writing {name}") from None
