"""The command line, in this process or in a fresh interpreter.

`run` is for what a command prints and its exit code. `run_fresh` is for what only a process
of its own shows: closed streams, encodings, logging, what happens at exit.
"""

import io
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from types import SimpleNamespace
from unittest import mock

from . import lib

COMMAND = [sys.executable, "-W", "error", "-m", "chatgptlib"]
PATIENCE = 60  # seconds until a test gives up on a process


def run_fresh(*arguments, stdin=None, text=True, **environment):
    """Run `python -m chatgptlib ARGUMENTS` to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        encoding="utf-8" if text else None,
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        timeout=PATIENCE,
    )


def run(*arguments, stdin=None, **environment):
    """Run a command in this process: its exit code, and what it printed.

    The three streams are files, because the commands use their descriptors.
    """
    with ExitStack() as opened:
        files = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write((stdin or "").encode())
        files[0].seek(0)
        given, printed, errors = (
            opened.enter_context(io.TextIOWrapper(file, "utf-8", write_through=True))
            for file in files
        )
        opened.enter_context(mock.patch.object(sys, "stdin", given))
        opened.enter_context(mock.patch.dict(os.environ, environment))
        opened.enter_context(redirect_stdout(printed))
        opened.enter_context(redirect_stderr(errors))
        try:
            code = lib.main([*map(str, arguments)])
        except SystemExit as left:
            code = left.code
        texts = []
        for file in (printed, errors):
            file.flush()
            file.seek(0)
            texts.append(file.read())
    return SimpleNamespace(returncode=code, stdout=texts[0], stderr=texts[1])
