"""The offline server as a command, for programs in any language: `python -m chatgptlib serve`.

It prints its base URL on stdout and a line for each request on stderr, and runs until it is
stopped. A script is a JSON list of replies, or an object with the `replies` and `rules` of
`OfflineServer`: `{"replies": [...], "rules": [[condition, reply], ...]}`. A fault is written as
`{"Cut": {"after": 3}}`.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..codec import is_dict, is_list
from ..extras.offline import OfflineServer
from ..extras.offline_replies import Cut, Inject, Pieces, Stall
from ..replies import parsed
from .printing import print_message

_SCRIPT_FAULTS: dict[str, Any] = {kind.__name__: kind for kind in (Cut, Inject, Pieces, Stall)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns 1 for an error, or for unused replies if strict."""
    parser = argparse.ArgumentParser(
        prog="chatgptlib serve",
        description="Run a local server with the API's endpoints and no model, until Ctrl-C.",
    )
    add = parser.add_argument
    add("--port", type=int, default=0, metavar="N", help="the port; default: a free one")
    add("--script", type=Path, metavar="FILE.json", help="replies, and rules that choose them")
    add("--strict", action="store_true", help="reject invalid requests, and those without a reply")
    add("--api-key", metavar="KEY", help="the key that clients must send")
    options = parser.parse_args(arguments)
    settings = {"strict": options.strict, "api_key": options.api_key, "port": options.port}
    try:
        script = _script(options.script) if options.script else {}
        server = OfflineServer(**script, **settings).start()
    except (OSError, OverflowError, TypeError, ValueError) as error:
        print_message(f"cannot serve: {error}")
        return 1
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(server.url, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()
    try:
        if options.strict:
            server.verify()
    except AssertionError as error:
        print_message(str(error))
        return 1
    return 0


def _script(path: Path) -> dict[str, Any]:
    """The `replies` and `rules` of a script file. Raises OSError, ValueError or TypeError."""
    given, broken = parsed(path.read_text(encoding="utf-8-sig"))
    if broken is not None:
        raise ValueError(f"{path} is not JSON: {broken}")
    script: dict[str, Any] = given if is_dict(given) else {"replies": given}
    if is_list(replies := script.get("replies")):
        script["replies"] = [_reply(reply) for reply in replies]
    rules = script.get("rules", [])
    if not is_list(rules) or not all(is_list(rule) and len(rule) == 2 for rule in rules):
        raise ValueError("rules must be a list of pairs, [condition, reply]")
    script["rules"] = [(condition, _reply(reply)) for condition, reply in rules]
    return script


def _reply(value: Any) -> Any:
    """A reply, in which `{name of a fault: its arguments}` is made that fault."""
    if not is_dict(value) or len(value) != 1 or (name := min(value)) not in _SCRIPT_FAULTS:
        return value
    if not is_dict(settings := value[name]):
        raise ValueError(f"{name} must be an object with its arguments, not {settings!r:.40}")
    given = {key: _reply(item) if key == "answer" else item for key, item in settings.items()}
    return _SCRIPT_FAULTS[name](**given)
