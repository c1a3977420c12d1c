"""The README: what it shows runs as it stands, against the offline server."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from . import lib

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]


def test_the_python_blocks_run_one_after_the_other(monkeypatch, capsys):
    assert len(PYTHON) >= 5
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-key")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key")
    with lib.OfflineServer() as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-any-key")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        names = {}
        for code in PYTHON:
            code = code.replace("from chatgptlib import", f"from {lib.name} import")
            exec(compile(code, "README.md", "exec"), names)
            for client in names.values():
                if isinstance(client, lib.OpenAIClient):
                    client.close()
    printed = capsys.readouterr().out
    assert "Write a tagline for an ice cream shop." in printed
    assert "Shorter, please." in printed
    assert "stop\n" in printed


def test_the_first_two_commands_are_the_quick_start():
    commands = next(code for language, code in BLOCKS if language == "sh").splitlines()
    assert commands == [
        'pip install . && python -m chatgptlib --offline "Write a tagline for an ice cream shop."',
        'pip install ".[test]" && python -m pytest',
    ]


@pytest.mark.skipif(lib.name != "chatgptlib", reason="the command line is the package's")
def test_the_quick_start_streams_an_answer():
    command = next(code for language, code in BLOCKS if language == "sh").splitlines()[0]
    _, run = command.split(" && ")
    words = [sys.executable, *shlex.split(run)[1:]]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Write a tagline for an ice cream shop." in done.stdout


def test_the_readme_names_what_there_is():
    for name in re.findall(r"from chatgptlib import (.*)", README):
        for one in name.split(", "):
            assert hasattr(lib.modules[0], one)
