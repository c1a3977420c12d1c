"""What users write with the offline server: strict mypy and strict pyright find nothing in it."""

import re
from itertools import repeat
from typing import Any

from chatgptlib import Cut, Inject, OfflineServer, Pieces, Stall


def reply(body: dict[str, Any]) -> str | Cut:
    return Cut(after=1) if body.get("stream") else "whole"


server = OfflineServer(
    [
        "Hi!",
        429,
        {"tool_calls": []},
        (429, {"error": {}}, {"Retry-After": "1"}),
        (502, b"<html>"),
        reply,
        Cut(),
        Cut(after=3, how="reset", answer="Hi!"),
        Stall(2.0, after=0, answer=Inject({"error": {}}, after=2)),
        Pieces([1, 2, 3], answer=reply),
    ],
    rules=[
        ("weather", "Rain."),
        (re.compile("^hi", re.I), Stall(1, answer="Hi!")),
        ({"model": "big", "tool": "f"}, Inject("{", answer="Hi!")),
        (lambda body: body["n"] == 2, 503),
    ],
    strict=True,
    api_key="key",
    port=8080,
)
server.replies.append(Cut(after=1))
server.requests.clear()
server.verify()
endless = OfflineServer(repeat("Hi!"), delay=0.1).start()
endless.close()
