"""Many requests from a file: `python -m chatgptlib batch IN.jsonl OUT.jsonl -j 8`.

Answers are written as they arrive. A batch that was stopped at any moment resumes when it is
started again. Only final outcomes are written: answers, and errors that the same request would
get again. Failed connections and the statuses 408, 409, 429 and 5xx are not final. A rejected key,
an exhausted quota, a lasting 429 and five equal errors in a row stop the batch.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import timedelta
from random import random
from typing import Any

from ..chat import create_chat_completion
from ..client import OpenAIClient, retry_delay
from ..errors import (
    APIError,
    AuthenticationError,
    HTTPError,
    InternalServerError,
    JSONValue,
    OpenAIError,
    QuotaExceededError,
    RateLimitError,
    is_transient,
)
from .batch_files import BatchLine, BatchOutput, is_token_count, read_requests
from .printing import print_message

_TICK = 0.5  # seconds between updates of the progress
_EQUAL_ERRORS = 5  # this many in a row stop a batch
_MOST_429S = 14  # in a row; one more stops the batch
_LEAST_HOLD = 0.06  # seconds, times n² after the n-th 429 in a row: a minute for all 14
_LONGEST_HOLD = 3600.0  # seconds; a 429 that asks for more stops a batch at once
_SHOWN = 10  # unreadable lines to list
# These stop the batch at once. A 403 is not among them: moderation rejects single prompts with it.
_FATAL = (AuthenticationError, RateLimitError)
_ADVICE = {
    "errors": "errors: --retry-errors sends them again",
    "cut off": "cut off: raise --max-tokens, and add --retry-cut to send them again",
    "filtered": "cut off by the server's content filter: --retry-cut sends them again",
    "other": "answered with other options (model, system, schema, parameters): --again sends "
    "them again",
    "unanswered": "not answered: the same command sends them again",
}


class RateLimiter:
    """Delays requests to keep within rate limits, both given ones and those of the server.

    `rpm` and `tpm` are requests and tokens a minute, or None for no limit. A request is assumed
    to use the mean number of tokens of the answers so far. A 429 delays all requests for the
    time that it asks for, and halves the number of concurrent requests, which then grows again
    with each answer.
    """

    def __init__(self, jobs: int, rpm: float | None, tpm: float | None) -> None:
        self.held_until = 0.0  # on the monotonic clock
        self._changed = threading.Condition()
        self._jobs, self._running = jobs, 0
        # How many requests may run at once. A limit of tokens needs an answer first, to know a
        # request's tokens.
        self._allowed = 1.0 if tpm else float(jobs)
        self._request_seconds = 60 / rpm if rpm else 0.0
        self._token_seconds = 60 / tpm if tpm else 0.0
        self._next = 0.0
        self._tokens = self._answers = self._rate_limit_errors = 0
        self._is_stopped = False

    def acquire(self, not_before: float) -> bool:
        """Wait until a request may be sent; return False if the batch was stopped."""
        with self._changed:
            while not self._is_stopped:
                now = time.monotonic()
                wait = max(self._next, self.held_until, not_before) - now
                if wait <= 0 and self._running < int(self._allowed):
                    self._running += 1
                    mean = self._tokens / max(self._answers, 1)
                    seconds = max(self._request_seconds, mean * self._token_seconds)
                    self._next = max(self._next, now) + seconds
                    return True
                self._changed.wait(min(wait, _LONGEST_HOLD) if wait > 0 else None)
            return False

    def release(self, tokens: int | None) -> None:
        """Note the end of a request. `tokens` is None if it got no answer."""
        with self._changed:
            self._running -= 1
            if tokens is not None:
                self._tokens, self._answers = self._tokens + tokens, self._answers + 1
                self._allowed = min(self._allowed + 1 / self._allowed, self._jobs)
                self._rate_limit_errors = 0
            self._changed.notify_all()

    def back_off(self, error: RateLimitError) -> bool:
        """Delay all requests after a 429; return False if waiting is not worthwhile."""
        with self._changed:
            seconds = error.retry_after
            if seconds is None:
                seconds = retry_delay(error, self._rate_limit_errors, random())
            now = time.monotonic()
            if now >= self.held_until:  # else it was sent before an earlier 429 arrived
                self._rate_limit_errors += 1
                self._allowed = max(self._allowed / 2, 1.0)
            if seconds is None or seconds > _LONGEST_HOLD or self._rate_limit_errors > _MOST_429S:
                return False
            least = _LEAST_HOLD * self._rate_limit_errors**2
            self.held_until = max(self.held_until, now + max(seconds, least))
            return True

    def stop(self) -> int:
        """Let no more requests start; return how many are running."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
            return self._running


class Tally:
    """Counts the lines and their outcomes, in this run and in earlier ones."""

    def __init__(self, lines: int, unreadable: list[str]) -> None:
        self.lines, self.unreadable = lines + len(unreadable), unreadable
        self.outcomes: Counter[str] = Counter()
        self.before = 0  # outcomes of earlier runs
        self.other_options = 0  # those of them with other options
        self._started = time.monotonic()

    @property
    def unanswered(self) -> int:
        """The number of lines without an outcome."""
        return self.lines - len(self.unreadable) - self.outcomes.total()

    def progress(self, held: float) -> str:
        """The progress in a line; `held` is how many seconds a 429 still delays requests."""
        done = self.outcomes.total()
        parts = [f"{done}/{self.lines}"]
        parts += [f"{self.outcomes[name]} {name}" for name in _ADVICE if self.outcomes[name]]
        if rate := (done - self.before) / max(time.monotonic() - self._started, 0.001):
            left = timedelta(seconds=round(self.unanswered / rate))
            parts += [f"{rate:.1f}/s", f"{left} left"]
        return ", ".join(parts) + (f", waiting {held:.0f} s (429)" if held > 0 else "")

    def summary(self) -> Iterator[str]:
        """The outcomes in lines, with advice on lines that have no complete answer."""
        errors, unreadable = self.outcomes["errors"], len(self.unreadable)
        text = f"{self.lines} lines: {self.outcomes.total() - errors} answered, {errors} errors"
        text += f" ({self.before} of them earlier)" if self.before else ""
        yield text + (f", {unreadable} unreadable" if unreadable else "")
        yield from self.unreadable[:_SHOWN]
        rest = self.outcomes + Counter(other=self.other_options, unanswered=self.unanswered)
        yield from (f"{rest[name]} {_ADVICE[name]}" for name in _ADVICE if rest[name])


class Batch:
    """Sends the lines of a batch on several threads, and writes their outcomes."""

    def __init__(
        self,
        client: OpenAIClient,
        lines: list[BatchLine],
        output: BatchOutput,
        tally: Tally,
        options: argparse.Namespace,
    ) -> None:
        self._client, self._output = client, output
        self._tally, self._options = tally, options
        self._limiter = RateLimiter(options.jobs, options.rpm, options.tpm)
        self._order = lines if options.ordered else []
        self._lines = iter([line for line in lines if self._is_due(line)])
        self._lock = threading.Lock()  # guards the lines, the output and the tally
        self._running_threads = 0
        self._is_over = threading.Event()
        self._failure: BaseException | None = None
        self._last_error, self._in_a_row = "", 0
        self._errors_shown: set[str] = set()
        self._drawn = 0  # length of the progress line on the screen
        self._is_shown = sys.stderr.isatty() and (output.is_file or not sys.stdout.isatty())

    def _is_due(self, line: BatchLine) -> bool:
        """Whether to send a line in this run; if not, its earlier outcome is counted."""
        earlier, outcome = self._output.done.get(str(line.id), ("", ""))
        options, tally = self._options, self._tally
        again = ["errors"] * options.retry_errors + ["cut off", "filtered"] * options.retry_cut
        is_other = earlier not in ("", line.fingerprint)
        if not outcome or outcome in again or (options.again and is_other):
            return True
        if is_other and earlier.partition("-")[0] != line.fingerprint.partition("-")[0]:
            tally.unreadable.append(
                f"id {line.id!r}: its answer in OUT comes from --offline or belongs to another "
                "request; --again sends it"
            )
        else:
            tally.outcomes[outcome] += 1
            tally.before += 1
            tally.other_options += is_other
        return False

    def run(self) -> None:
        """Send the lines. Ctrl-C and SIGTERM wait for the running requests, which are billed
        anyway; a second one does not."""
        if not self._output.is_file:
            self._print("this can't be resumed if it is stopped: to resume, name a file as OUT")
        interruption = None
        jobs = min(self._options.jobs, self._tally.unanswered)
        try:
            self._watch(self._start(jobs))
        except KeyboardInterrupt as error:
            interruption, running = error, self._limiter.stop()
            self._print(f"stopping; waiting for {running} answers (Ctrl-C: leave at once)")
            self._watch(self._running_threads)
        self._output.finish(self._order)
        if failure := interruption or self._failure:
            raise failure

    def _start(self, threads: int) -> int:
        """Start threads, as many as the system allows, and return how many."""
        for started in range(threads):
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError:
                if not started:
                    raise
                self._print(f"the system allows only {started} threads")
                return started
        return threads

    def _watch(self, threads: int) -> None:
        # An interrupted Thread.join() may take a running thread for ended (bpo-45274).
        while threads and not self._is_over.wait(_TICK):
            self._draw()

    def _draw(self) -> None:
        """Print the progress over the previous one, on a terminal."""
        if self._is_shown:
            width = (shutil.get_terminal_size().columns or 80) - 1  # 0 in a new pseudo-terminal
            with self._lock:
                text = self._tally.progress(self._limiter.held_until - time.monotonic())[:width]
                print(f"\r{text:{self._drawn}}", end="", file=sys.stderr, flush=True)
                self._drawn = len(text)

    def _print(self, text: str) -> None:
        """Print a message in place of the progress."""
        blank, self._drawn = " " * self._drawn, 0
        print(end=f"\r{blank}\r" if blank else "", file=sys.stderr)
        print_message(text)

    def report(self) -> None:
        """Print the outcomes."""
        if self._tally.lines:
            self._draw()
            print(end="\n" if self._drawn else "", file=sys.stderr)
            self._drawn = 0
            for text in (*self._tally.summary(), self._cost()):
                self._print(text)

    def _cost(self) -> str:
        tokens, options = self._output.tokens, self._options
        text = f"tokens: {tokens['prompt']:,} prompt ({tokens['cached']:,} of them cached), "
        text += f"{tokens['completion']:,} completion"
        if tokens["unknown"]:
            text += f"; {tokens['unknown']} answers did not report any"
        if options.price_in is not None or options.price_out is not None:
            price = tokens["prompt"] * (options.price_in or 0)
            price += tokens["completion"] * (options.price_out or 0)
            text += f"; price: {price / 1e6:.6f}"
        return text

    def _work(self) -> None:
        with self._lock:
            self._running_threads += 1
        try:
            while (line := self._next_line()) is not None:
                if (result := self._send(line)) is None:
                    return
                with self._lock:
                    self._keep(line, result)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._lock:
                self._running_threads -= 1
                if not self._running_threads:  # a thread that starts later finds no line
                    self._is_over.set()

    def _next_line(self) -> BatchLine | None:
        with self._lock:
            return next(self._lines, None)

    def _send(self, line: BatchLine) -> dict[str, Any] | OpenAIError | None:
        """The answer, or an error that is not retried; None if the batch was stopped."""
        attempt, not_before = 0, 0.0
        while self._limiter.acquire(not_before):
            tokens = None
            try:
                response = create_chat_completion(self._client, line.body, into=dict)
                tokens = _total_tokens(response)
                return response
            except RateLimitError as error:
                if isinstance(error, QuotaExceededError) or not self._limiter.back_off(error):
                    return error
            except OpenAIError as error:
                delay = retry_delay(error, attempt, random())
                if delay is None or attempt >= self._options.retries:
                    return error
                attempt, not_before = attempt + 1, time.monotonic() + delay
            finally:
                self._limiter.release(tokens)
        return None

    def _keep(self, line: BatchLine, result: dict[str, Any] | OpenAIError) -> None:
        """Write and count a result if it is final."""
        if isinstance(result, _FATAL):
            if not self._failure:
                self._print(f"stopped at id {line.id!r}")
            self._fail(result)
            return
        if isinstance(result, OpenAIError):
            self._note_error(line, result)
            if _is_temporary(result):
                return
        else:
            self._last_error = ""
        self._tally.outcomes[self._output.write(line, result)] += 1

    def _note_error(self, line: BatchLine, error: OpenAIError) -> None:
        """Print an error the first time; stop the batch if the same error repeats."""
        text = str(error)
        if isinstance(error, APIError):
            text = f"{error.status_code} {error.message}"  # without the request's id
        self._in_a_row = self._in_a_row + 1 if text == self._last_error else 1
        self._last_error = text
        if text not in self._errors_shown:
            self._errors_shown.add(text)
            self._print(f"id {line.id!r}: {error}")
        if self._in_a_row == _EQUAL_ERRORS:
            self._limiter.stop()
            self._print(
                f"stopped: {_EQUAL_ERRORS} lines in a row had the same error. Correct its cause: "
                "-m is the model, --base-url the server"
            )

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._limiter.stop()


def _total_tokens(response: JSONValue) -> int:
    usage = response.get("usage") if isinstance(response, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return int(total) if is_token_count(total) else 0


def _is_temporary(error: OpenAIError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, APIError):
        return isinstance(error, InternalServerError) or is_transient(error.status_code)
    return isinstance(error, HTTPError)


# The command


def batch_command(
    arguments: Sequence[str],
    common: argparse.ArgumentParser,
    open_client: Callable[..., AbstractContextManager[OpenAIClient]],
) -> int:
    """Run `chatgptlib batch` and return its exit code.

    `common` has the options that all commands share; `open_client` makes a client from them.
    """
    options = _options(arguments, common)
    named = {
        "model": options.model,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "response_format": options.schema,
    }
    options.defaults = dict(options.param)
    options.defaults |= {name: value for name, value in named.items() if value is not None}
    lines, unreadable = read_requests(options)
    tally = Tally(len(lines), unreadable)
    with (
        open_client(options, max_retries=0) as client,
        closing(BatchOutput(options.target, options.openai_format)) as output,
    ):
        output.read()
        batch = Batch(client, lines, output, tally, options)
        # SIGTERM acts like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            batch.run()
        except KeyboardInterrupt:
            batch.report()
            sys.stderr.flush()
            os._exit(130)  # without waiting for the threads
        finally:
            batch.report()
    return 0 if tally.outcomes["answered"] == tally.lines else 1


def _options(arguments: Sequence[str], common: argparse.ArgumentParser) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="chatgptlib batch",
        usage="%(prog)s [options] IN OUT",
        parents=[common],
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32),
        description="Send each line of IN, a prompt or a JSON request, and write its answer as "
        "a line of OUT. IN may also be a JSON array or a table (CSV, TSV). The same command "
        "resumes a batch that was stopped.",
        epilog="Exit codes: 0 every line is answered, 1 some are not, 2 wrong usage, 130 Ctrl-C.",
    )
    add = parser.add_argument
    add("source", metavar="IN", help="a file, or - for stdin")
    add("target", metavar="OUT", help="a file, or - for stdout")
    add("-j", "--jobs", type=int, default=4, metavar="N", help="concurrent requests; default: 4")
    add("--rpm", type=float, metavar="N", help="at most N requests a minute")
    add("--tpm", type=float, metavar="N", help="at most N tokens a minute")
    add("--retries", type=int, default=5, metavar="N", help="retries of a line; default: 5")
    add("--retry-errors", action="store_true", help="send lines again that are errors in OUT")
    add("--retry-cut", action="store_true", help="send lines again that are cut off in OUT")
    add("--again", action="store_true", help="send lines again that had other options")
    add("--prompt", metavar="TEXT", help="for tables: 'Label this: {column}'")
    add("--ordered", action="store_true", help="finally sort OUT like IN")
    add("--openai-format", action="store_true", help="write OUT in OpenAI's batch format")
    add("--price-in", type=float, metavar="X", help="price of a million prompt tokens")
    add("--price-out", type=float, metavar="X", help="price of a million completion tokens")
    options = parser.parse_args(arguments)
    for name in ("jobs", "rpm", "tpm"):
        if (value := getattr(options, name)) is not None and not value > 0:
            parser.error(f"--{name} must be more than 0, not {value}")
    if options.ordered and options.target == "-":
        parser.error("--ordered needs a file as OUT, not -")
    if re.search(r"[\ud800-\udfff]", options.prompt or ""):
        parser.error("--prompt is not valid UTF-8")
    return options
