"""The command line: `python -m chatgptlib "Write a tagline."`

The answer goes to stdout as it comes, everything else to stderr. Exit codes: 0 for a
whole answer, 1 for an error, 2 for wrong usage, 130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from .chat import create_chat_completion, create_chat_completion_stream
from .client import OpenAIClient, __version__
from .errors import AuthenticationError, ConfigError, OpenAIError
from .messages import (
    ChatMessage,
    CreateChatCompletionRequest,
    CreateChatCompletionResponse,
    Model,
)
from .offline import OfflineServer

_OFFLINE_DELAY = 0.03  # seconds between pieces, so that one sees a stream


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with `arguments`, else those of the process; the exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not know every character
    try:
        try:
            return _run(options)
        except OpenAIError as error:
            _end_answer()
            _complain(_explained(error))
            return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has stopped. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(f"cannot write the answer: {error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chatgptlib",
        description="Ask a chat model. The key is read from OPENAI_API_KEY.",
        epilog="Text that is piped in follows the prompt: git diff | chatgptlib 'Review this:'",
    )
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="what to ask")
    add("-m", "--model", default=Model.GPT_4O_MINI, help="default: %(default)s")
    add("-s", "--system", metavar="TEXT", help="instructions for the model")
    add("-t", "--temperature", type=float, metavar="NUMBER", help="0 to 2")
    add("--max-tokens", type=int, metavar="N", help="the longest answer")
    add("--no-stream", action="store_true", help="print the answer when it is whole")
    add("--json", action="store_true", help="print the whole response as JSON")
    add("--usage", action="store_true", help="print the tokens used, to stderr")
    add("--base-url", metavar="URL", help="another server, up to and with /v1")
    add("--offline", action="store_true", help="ask a stand-in on this machine; needs no key")
    add("--version", action="version", version=f"chatgptlib {__version__}")
    return parser


def _run(options: argparse.Namespace) -> int:
    try:
        prompt = _prompt(options.prompt)
    except UnicodeDecodeError as error:
        raise ConfigError(f"what is piped in is not {error.encoding} text: {error}") from error
    if not prompt:
        _complain("nothing to ask: give a prompt, or pipe one in (--help tells more)")
        return 2
    messages = [ChatMessage.system(options.system)] if options.system else []
    request = CreateChatCompletionRequest(
        model=options.model,
        messages=[*messages, ChatMessage.user(prompt)],
        temperature=options.temperature,
        max_tokens=options.max_tokens,
    )
    with OfflineServer(delay=_OFFLINE_DELAY) if options.offline else nullcontext() as server:
        settings: dict[str, Any] = {"base_url": options.base_url}
        if server is not None:  # nothing of the environment is for the stand-in
            settings = {"base_url": server.url, "api_key": "offline", "proxies": _NO_PROXY}
        with OpenAIClient(**settings) as client:
            whole = options.no_stream or options.json
            response = _whole(client, request) if whole else _streamed(client, request, options)
        if options.json:
            print(json.dumps(response.to_dict(), indent=2, ensure_ascii=False))
        elif whole:
            print(response.text)
        sys.stdout.flush()
        if options.usage:
            _print_usage(response)
    return _told_of_end(response)


_NO_PROXY = {"http": "", "https": "", "all": ""}


def _told_of_end(response: CreateChatCompletionResponse) -> int:
    """Say on stderr what the text does not show: a refusal, a cut, an answer without text."""
    choice = response.choices[0] if response.choices else None
    if choice is None:
        _complain("the answer holds no choice")
        return 1
    if choice.message.refusal:
        _complain(f"the model refused: {choice.message.refusal}")
        return 1
    if choice.finish_reason not in ("stop", None):
        _complain(f"the answer ended with finish_reason {choice.finish_reason!r}")
    elif not response.text:
        _complain("the answer holds no text (--json shows all of it)")
    return 0


def _prompt(words: list[str]) -> str:
    """The arguments, then what is piped in."""
    parts = [" ".join(words)]
    if sys.stdin is not None and not sys.stdin.isatty():
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="strict")  # not half a character to the server
        parts.append(sys.stdin.read())
    return "\n\n".join(part for part in map(str.strip, parts) if part)


def _whole(
    client: OpenAIClient, request: CreateChatCompletionRequest
) -> CreateChatCompletionResponse:
    return create_chat_completion(client, request)


def _streamed(
    client: OpenAIClient, request: CreateChatCompletionRequest, options: argparse.Namespace
) -> CreateChatCompletionResponse:
    if options.usage:
        request.stream_options = {"include_usage": True}
    with create_chat_completion_stream(client, request) as stream:
        for text in stream.text_deltas():
            print(text, end="", flush=True)
        print()
        return stream.response()


def _print_usage(response: CreateChatCompletionResponse) -> None:
    usage = response.usage
    if usage is None:
        _complain("the server told no usage")
        return
    _complain(
        f"{usage.prompt_tokens} prompt + {usage.completion_tokens} completion"
        f" = {usage.total_tokens} tokens"
    )


def _explained(error: OpenAIError) -> str:
    if isinstance(error, (ConfigError, AuthenticationError)) and "key" in str(error).lower():
        return f"{error} (or try --offline, which needs no key)"
    return str(error)


def _end_answer() -> None:
    """End the line of an answer that broke off, before the error is told."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        print()


def _complain(text: str) -> None:
    print(f"chatgptlib: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
