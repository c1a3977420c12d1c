"""The files of a batch: IN with the requests, in several formats, and OUT with the answers.

IN has a prompt or a JSON request on each line, or is a JSON array of them, or a table (CSV, TSV)
whose rows fill in a prompt. OUT has a JSON line for each: its `id`, a fingerprint of the request
(`line`), and a `response` or an `error`; or the same in OpenAI's batch format. If several lines
of OUT have the same id, the last one counts.
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
from typing import Any, NamedTuple, TypeGuard

from ..errors import ConfigError, DeserializeError, JSONValue, OpenAIError, excerpt
from ..models import ChatCompletionUsage, CreateChatCompletionResponse, PromptTokensDetails
from ..replies import parsed

_OUTCOMES = {"length": "cut off", "content_filter": "filtered"}  # by finish reason
_UNDECODED = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes not in UTF-8
_OPENAI_ID = "batch_req_"  # OpenAI puts a number after it, this module the fingerprint


# IN


class BatchLine(NamedTuple):
    """One request of IN."""

    id: str | int
    fingerprint: str  # of the line and of the complete request, with a hyphen between
    body: dict[str, Any]


def read_requests(options: argparse.Namespace) -> tuple[list[BatchLine], list[str]]:
    """The requests of IN, and a message for each line that is not a request.

    Raises ConfigError if the file can't be read, or its format is not known.
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
                raise ValueError(f"its id {line.id!r} is also the id of {unit} {before}")
            lines.append(line)
        except ValueError as error:
            unreadable.append(f"{unit} {number}: {error}")
    return lines, unreadable


def _text_of(source: str, name: str) -> str:
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            data = file.read()
        is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if is_utf_16 else "utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is damaged: {error}") from error
    if "\0" in text:
        raise ConfigError(
            f"{name} contains NUL bytes: it is not text, or lacks the byte order mark of its "
            "encoding; save it as UTF-8"
        )
    return text


def _values(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """The number and the prompt or request of each line; a ValueError for an unreadable one."""
    unclosed = ""  # the previous line, if its JSON does not end with it
    for number, line in enumerate(map(str.strip, text.split("\n")), 1):
        if not line:
            continue
        value: Any = line
        error: Exception | None = None
        if line[0] in '{["':
            value, error = parsed(line)
        if unclosed and _is_json_prefix(f"{unclosed}\n{line}"):
            raise ConfigError(
                f"{name}: the JSON before line {number} continues in it: write each request on a "
                "single line, as jq -c . does, or all of them as one array"
            )
        unclosed = line if error and _is_json_prefix(line) else ""
        if error and line[0] == "{":
            value = ValueError(f"not JSON: {error}: {excerpt(line[:80])}")
        elif error:  # a prompt that begins with a quote or a bracket
            value = line
        yield number, value


def _rows(text: str, name: str) -> Iterator[tuple[int, Any]]:
    import csv

    csv.field_size_limit(2**31 - 1)
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # some spreadsheets write semicolons
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        columns = [column.strip() for column in next((row for row in rows if row), "")]
        mismatch = excerpt(f"it needs a field for each of {columns}")
        for number, row in enumerate((row for row in rows if row), 1):
            value = dict(zip(columns, row, strict=False))
            fits = len(row) == len(columns) == len(value)
            yield number, value if fits else ValueError(mismatch)
    except csv.Error as error:
        raise ConfigError(f"{name} is not a valid table: {error}") from error


def _line(number: int, value: JSONValue | ValueError, options: argparse.Namespace) -> BatchLine:
    if isinstance(value, ValueError):
        raise value
    if _UNDECODED.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError("not UTF-8")
    line_id: JSONValue = number
    if isinstance(value, dict):
        line_id = value.get("custom_id", value.get("id", number))
    if isinstance(line_id, bool) or not isinstance(line_id, (str, int)) or line_id == "":
        raise ValueError(f"an id must be a text or an integer, not {json.dumps(line_id)}")
    body: dict[str, Any] = {**options.defaults, **_body(value, options.prompt)}
    if options.system and not any(map(_instructs, body["messages"])):
        body["messages"] = [{"role": "system", "content": options.system}, *body["messages"]]
    asked = ["offline", value] if options.offline else value
    return BatchLine(line_id, f"{_hash(asked)}-{_hash(body)}", body)


def _body(value: JSONValue, template: str | None) -> dict[str, Any]:
    """The request that a prompt, a row or an object describes. Raises ValueError."""
    if isinstance(value, dict):
        body = value.get("body", {k: value[k] for k in value if k not in ("custom_id", "id")})
        if isinstance(body, dict) and isinstance(body.get("messages"), list):
            if body.pop("stream", None):
                raise ValueError("a batch can't stream: leave out `stream`")
            return body
        if template is None:
            raise ValueError("a request needs a list of messages (or --prompt 'Label: {name}')")
        value = _filled(template, value)
    elif template is not None:
        raise ValueError("--prompt needs a row or a JSON object")
    if not isinstance(value, str):
        raise ValueError(f"a request must be a JSON object, not {type(value).__name__}")
    return {"messages": [{"role": "user", "content": value}]}


def _filled(template: str, record: Mapping[str, JSONValue]) -> str:
    """The prompt for a record. Braces that can't enclose a name are kept."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in record:
            raise ValueError(f"--prompt has {match[0]}; the names are {', '.join(record)}")
        value = record[match[1]]
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    prompt, count = re.subn(r'\{([^{}":,]+)\}', value_of, template)
    if not count:
        raise ValueError("--prompt contains no {name}, so all requests would be the same")
    return prompt


def _instructs(message: JSONValue) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")


def _hash(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _is_json_prefix(text: str) -> bool:
    """Whether this is JSON or the beginning of it."""
    _, error = parsed(text)
    return error is None or (isinstance(error, json.JSONDecodeError) and error.pos >= len(text))


# OUT


class BatchOutput:
    """The file of answers: the outcomes in it, to which more are added.

    "-" is stdout. That, a pipe and a device have no earlier outcomes. Raises ConfigError for a
    file that can't be written.
    """

    def __init__(self, target: str, openai_format: bool) -> None:
        self.done: dict[str, tuple[str, str]] = {}  # fingerprint and outcome by id
        self.tokens: Counter[str] = Counter()  # of all answers; "unknown" counts those without
        self._name = "stdout" if target == "-" else repr(target)
        self.is_file = target != "-" and (os.path.isfile(target) or not os.path.exists(target))
        self._path = os.path.realpath(target)
        self._openai_format = openai_format
        self._has_old_lines = False
        try:
            if self.is_file:
                self._file = io.FileIO(self._path, "ab+", opener=_private)
            elif target == "-":
                self._file = io.FileIO(sys.stdout.fileno(), "wb", closefd=False)
            else:
                self._file = io.FileIO(target, "wb")
        except OSError as error:
            raise ConfigError(f"cannot write {self._name}: {error.strerror}") from error

    def read(self) -> None:
        """Read the outcomes of earlier runs. Raises ConfigError if another program wrote them."""
        if not self.is_file:
            return
        _lock(self._file, self._name)
        good, line = 0, b""
        with open(self._path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                record, error = parsed(line)
                if self._note(record):
                    good += len(line)
                elif error and line[:7] == b'{"id": '[: len(line)] and not line.endswith(b"\n"):
                    self._file.truncate(good)  # the process ended while it wrote this line
                    return
                else:
                    raise ConfigError(
                        f"{self._name} is not the output of a batch (line {number}): name another"
                    )
        if line and not line.endswith(b"\n"):
            self._append(b"\n")

    def _note(self, record: JSONValue) -> str | None:
        """Note the outcome of a record and return it; None if it is not a batch's record."""
        found = _answer_in(record)
        if found is None:
            return None
        line_id, fingerprint, response = found
        outcome = self._outcome(response) if isinstance(response, dict) else "errors"
        self._has_old_lines |= line_id in self.done
        self.done[line_id] = fingerprint, outcome
        return outcome

    def _outcome(self, response: Mapping[str, Any]) -> str:
        """The outcome of a response, whose tokens are counted."""
        try:
            answer = CreateChatCompletionResponse.from_dict(response)
        except DeserializeError:  # an unusual answer is an answer, too
            answer = CreateChatCompletionResponse([])
        usage = answer.usage or ChatCompletionUsage()
        details = usage.prompt_tokens_details or PromptTokensDetails()
        counts: dict[str, Any] = {  # of any type, since reading is lenient
            "prompt": usage.prompt_tokens,
            "completion": usage.completion_tokens,
            "cached": details.cached_tokens,
        }
        known = {kind: count for kind, count in counts.items() if is_token_count(count)}
        self.tokens.update(known or {"unknown": 1})
        reasons = [choice.finish_reason for choice in answer.choices]
        return next((_OUTCOMES[reason] for reason in _OUTCOMES if reason in reasons), "answered")

    def write(self, line: BatchLine, result: dict[str, Any] | OpenAIError) -> str:
        """Write an answer or an error to the file, and return the outcome."""
        record = _record(line, result, self._openai_format)
        text = json.dumps(record, ensure_ascii=self._file.isatty())  # escaped for a terminal
        self._check_not_moved()
        self._append(text.encode("utf-8", "backslashreplace") + b"\n")
        return self._note(record) or "errors"

    def _append(self, data: bytes) -> None:
        start = os.fstat(self._file.fileno()).st_size
        try:
            while data:
                data = data[self._file.write(data) :]
        except BrokenPipeError:
            raise  # the reader of stdout has stopped
        except OSError as error:
            if self.is_file:  # leave no partial line
                self._file.truncate(start)
            raise ConfigError(f"cannot write {self._name}: {error.strerror}") from error

    def _check_not_moved(self) -> None:
        """Raise ConfigError if the file's path no longer leads to it."""
        try:
            is_here = not self.is_file or os.path.samefile(self._path, self._file.fileno())
        except OSError:
            is_here = False
        if not is_here:
            raise ConfigError(
                f"{self._name} was moved, removed or replaced while it was written, and lacks "
                "answers: put it back and start again"
            )

    def finish(self, order: Sequence[BatchLine]) -> None:
        """Remove all but the last line of each id, and sort the lines like `order`."""
        self._check_not_moved()
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
            self._file.close()  # Windows does not replace an open file
            os.replace(new, self._path)
        except OSError as error:
            raise ConfigError(f"cannot sort {self._name}: {error.strerror}") from error
        finally:
            Path(new).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, so that another batch may write it."""
        self._file.close()


def is_token_count(value: object) -> TypeGuard[float]:
    """Whether a value of a server's usage can be a number of tokens."""
    return isinstance(value, (int, float)) and 0 <= value <= 2**53


def _answer_in(record: JSONValue) -> tuple[str, str, JSONValue] | None:
    """Id, fingerprint and response of a record in either format; None if it is not a batch's.

    The fingerprint is "" and the response None if the record has none.
    """
    if not isinstance(record, dict) or not {"response", "error"} & record.keys():
        return None
    line_id, fingerprint = record.get("id"), str(record.get("line", ""))
    response = record.get("response")
    if "custom_id" in record:
        line_id, fingerprint = record["custom_id"], str(line_id).removeprefix(_OPENAI_ID)
        if isinstance(response, dict):
            response = response.get("body") if response.get("status_code") == 200 else None
    if not isinstance(line_id, (str, int)):
        return None
    return str(line_id), fingerprint if "-" in fingerprint else "", response


def _record(
    line: BatchLine, result: dict[str, Any] | OpenAIError, openai_format: bool
) -> dict[str, Any]:
    """The record to write for an answer or an error."""
    error: dict[str, Any] | None = None
    if isinstance(result, OpenAIError):
        error = {"type": type(result).__name__, "message": str(result)}
        for name in ("status_code", "code", "body", "request_id"):
            error[name] = getattr(result, name, None)
    if not openai_format:
        ending = {"error": error} if error else {"response": result}
        return {"id": line.id, "line": line.fingerprint, **ending}
    return {
        "id": f"{_OPENAI_ID}{line.fingerprint}",
        "custom_id": str(line.id),
        "response": None if error else {"status_code": 200, "request_id": None, "body": result},
        "error": error,
    }


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # readable only by its owner, since prompts may be private


def _lock(file: io.FileIO, name: str) -> None:
    """Lock the file, since a second batch would send the same requests again."""
    try:
        import fcntl
    except ImportError:
        return  # Windows
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(f"another batch is writing {name}") from None
