"""The types of the public names: checkers accept correct code and flag wrong code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import lib
from .test_readme import PYTHON

pytest.importorskip("mypy", reason="no mypy is installed")
pytest.importorskip("pyright", reason="no pyright is installed")
if lib.name != "chatgptlib":
    pytest.skip("the package writes the file", allow_module_level=True)

pytestmark = pytest.mark.gate  # half a minute of checkers

ROOT = Path(lib.modules[0].__file__).parent.parent
TYPED, EXAMPLES = (Path(__file__).parent / name for name in ("typed", "examples"))


def readme():
    """The README's code, as the files that a reader would make of it."""
    program = "".join(code for code in PYTHON if not code.startswith("#"))
    bot, tool_bot = (code for code in PYTHON if code.startswith("#"))
    return {"program": program, "bot": bot, "tool_bot": tool_bot}


def uses():
    typed = [TYPED / "right.py", TYPED / "server.py", *EXAMPLES.glob("*.py")]
    texts = {path.stem: path.read_text("utf-8") for path in typed}
    package = (EXAMPLES / "vendored" / "summaries" / "__init__.py").read_text("utf-8")
    texts["summaries"] = package.replace("from .chat import", "from chatgptlib import")
    return {**texts, **readme()}


def mypy(folder):
    """The errors of strict mypy in the files of a folder: the message by file name and line."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir=cache",
               "--no-error-summary", "--hide-error-context", *sorted(map(str, folder.glob("*.py")))]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, timeout=300,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"(?m)^(?:.*/)?(\w+)\.py:(\d+): error: (.*)$", done.stdout)
    return {(name, int(line)): words for name, line, words in found}


def pyright(folder):
    """The errors of strict pyright, in the same form."""
    config = {"include": ["*.py"], "typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        capture_output=True, text=True, cwd=folder, timeout=300,
    )  # fmt: skip
    told = json.loads(done.stdout)["generalDiagnostics"]
    return {
        (Path(one["file"]).stem, one["range"]["start"]["line"] + 1): one["message"] for one in told
    }


CHECKERS = [pytest.param(mypy, id="mypy"), pytest.param(pyright, id="pyright")]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files for a checker to look at."""
    monkeypatch.undo()  # restores the environment, in which the checkers find their files

    def files(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text, "utf-8")
        return tmp_path

    return files


@pytest.mark.parametrize("checker", CHECKERS)
def test_correct_uses_and_the_readme_have_no_type_errors(checker, write):
    assert checker(write(**uses())) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_copy_in_one_file_has_the_same_types(checker, write):
    files = {
        name: text.replace("from chatgptlib import", "from my_chat import")
        for name, text in uses().items()
    }
    folder = write(my_chat=lib.vendored(["all"]), **files)
    assert {place: words for place, words in checker(folder).items() if place[0] != "my_chat"} == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_wrong_uses_are_flagged_each_in_its_line(checker, write):
    text = (TYPED / "wrong.py").read_text("utf-8")
    wrong = {number for number, line in enumerate(text.splitlines(), 1) if "  # wrong" in line}
    assert len(wrong) > 50
    assert {line for _, line in checker(write(wrong=text))} == wrong
