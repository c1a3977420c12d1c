"""The single file: made of the package alone, and the package in all that it does."""

import ast
import builtins
import hashlib
import importlib
import inspect
import os
import pickle
import re
import stat
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from . import lib, loaded_by
from .test_package import CORE, EXTRAS, FOLDER

if lib.name != "chatgptlib":
    pytest.skip("about the package itself", allow_module_level=True)

from chatgptlib.apps import vendor

LEFT_OUT = {"OfflineRequest", "OfflineServer"}
PUBLIC = sorted(set(lib.__all__) - LEFT_OUT)
TEXT = vendor.vendored()
TREE = ast.parse(TEXT)

USE = """
import pickle, sys
from {package} import {module} as lib

client = lib.OpenAIClient("sk-key", base_url=sys.argv[1])
client = pickle.loads(pickle.dumps(client))
request = lib.CreateChatCompletionRequest(model="m", messages=[lib.ChatMessage.user("Hi")])
print(lib.create_chat_completion(client, request).text)
print("".join(lib.create_chat_completion_stream(client, request).text_deltas()))
client.close()
error = pickle.loads(pickle.dumps(lib.DeserializeError("$: no", path="$")))
print(type(error).__module__, error.path, "chatgptlib" in sys.modules)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The single file, imported under another name."""
    folder = tmp_path_factory.mktemp("copy")
    vendor.main(["-o", str(folder / "under_another_name.py")])
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("under_another_name")
    finally:
        sys.path.remove(str(folder))
        del sys.modules["under_another_name"]


def source_of(name):
    return FOLDER.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")


def run(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **more,
    )  # fmt: skip


# What it looks like


def test_the_modules_stand_in_the_order_of_their_imports_and_none_is_missing():
    kept = [*CORE, *(name for name in EXTRAS if name != "extras.offline")]
    assert kept == vendor.VENDORED
    assert re.findall(r"^# ---- ([\w.]+) -+$", TEXT, re.M) == [*kept, "licence"]


def test_it_begins_with_what_it_is_and_how_to_make_it_again():
    name, licence, source, made, *_ = TEXT.splitlines()
    assert name.startswith(f"# chatgptlib {lib.__version__}: ")
    text = "".join(source_of(name) for name in (*vendor.VENDORED, "__init__"))  # fmt: skip
    assert source == f"# Source: sha256 {hashlib.sha256(text.encode()).hexdigest()}"
    assert "`python -m chatgptlib vendor -o FILE`" in made
    told = FOLDER.parent / "LICENSE"
    if told.exists():
        kind, _, copyright = told.read_text("utf-8").splitlines()[:3]
        assert licence == f"# {kind}, {copyright}; its text is at the end."
        text = "".join(f"# {line}".rstrip() + "\n" for line in told.read_text("utf-8").splitlines())
        assert TEXT.endswith(f"#\n{text}")


def test_it_has_one_docstring_that_of_the_package():
    assert ast.get_docstring(TREE) == inspect.getdoc(lib.modules[0])
    assert TEXT.count("from __future__ import annotations") == 1


def test_every_module_tells_in_a_comment_what_its_docstring_did():
    for name in vendor.VENDORED:
        doc = ast.get_docstring(ast.parse(source_of(name)))
        assert "\n#\n" + "".join(f"# {line}".rstrip() + "\n" for line in doc.splitlines()) in TEXT


def test_what_is_not_an_import_or_a_docstring_is_there_line_by_line():
    lines = set(TEXT.splitlines())
    for name in vendor.VENDORED:
        source = source_of(name)
        gone = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Import, ast.ImportFrom)) or (
                isinstance(node, ast.Expr) and node.lineno == 1
            ):
                gone.update(range(node.lineno, node.end_lineno + 1))
        for number, line in enumerate(source.splitlines(), 1):
            if number not in gone and line not in ("else:", "if TYPE_CHECKING:"):
                assert line in lines, (name, number)


def test_no_import_of_the_package_is_left_and_the_others_stand_at_the_top():
    for node in ast.walk(TREE):
        assert not (isinstance(node, ast.ImportFrom) and node.level), node.lineno
    imports = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in TREE.body]
    assert not any(imports[imports.index(False, 1) :])


def test_no_top_level_name_stands_for_two_things():
    """What a module imports, the others see as well, in place of a builtin for example."""
    imported, defined = {}, set(dir(builtins))
    for node in ast.walk(TREE):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and node.col_offset == 0:
            for alias in node.names:
                source = (getattr(node, "module", None), alias.name)
                assert imported.setdefault(alias.asname or alias.name, source) == source
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            overloads = any(ast.unparse(one) == "overload" for one in node.decorator_list)
            assert node.name not in defined, node.name
            defined.update([] if overloads else [node.name])
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names = {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
                assert not names & defined, names
                defined |= names
    assert not defined & imported.keys()


# The same wherever it is made


def test_the_same_sources_give_the_same_bytes():
    assert vendor.vendored() == TEXT
    done = run("-m", "chatgptlib", "vendor", cwd=FOLDER.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == TEXT.encode()


def test_made_from_a_zipped_package_it_is_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "chatgptlib.whl", "w") as wheel:
        for path in FOLDER.rglob("*.py"):
            wheel.writestr(
                str(path.relative_to(FOLDER.parent)), path.read_bytes().replace(b"\n", b"\r\n")
            )
    code = "import sys; sys.path.insert(0, 'chatgptlib.whl'); from chatgptlib.apps import vendor; sys.exit(vendor.main())"
    done = run("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == TEXT.encode()


def test_without_sources_it_says_so_and_leaves_the_file_alone(tmp_path, monkeypatch, capsys):
    target = tmp_path / "x.py"
    target.write_text("what was there")
    empty = tmp_path / "no_sources"
    empty.mkdir()
    monkeypatch.setattr(vendor.resources, "files", lambda package: empty)
    assert vendor.main(["-o", str(target)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("chatgptlib vendor: cannot read the source of chatgptlib.errors: ")
    assert target.read_text() == "what was there"


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    target = tmp_path / "x.py"
    target.write_text("what was there")
    with monkeypatch.context() as patched:
        patched.setattr(vendor.os, "replace", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            vendor.main(["-o", str(target)])
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]
    assert target.read_text() == "what was there"
    assert vendor.main(["-o", str(target)]) == 0
    assert target.read_bytes() == TEXT.encode()
    assert vendor.main(["-o", str(tmp_path / "nowhere" / "x.py")]) == 1
    assert f"there is no folder {tmp_path / 'nowhere'}\n" in capsys.readouterr().err
    assert vendor.main(["-o", str(tmp_path)]) == 1
    assert f"{tmp_path} is a folder" in capsys.readouterr().err


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    target = tmp_path / "x.py"
    target.touch(0o640)
    target.chmod(0o640)
    assert vendor.main(["-o", str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other_end:
        read = other_end.submit(pipe.read_bytes)
        assert vendor.main(["-o", str(pipe)]) == 0
        assert read.result(60) == TEXT.encode()
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("from . import errors", "what is not vendored", id="a-whole-module"),
        pytest.param("def f():\n    from .offline import g", "what is not vendored", id="left-out"),
        pytest.param("from ..errors import f", "what is not vendored", id="from-further-up"),
        pytest.param("from .errors import f as g", "another name", id="renamed"),
        pytest.param("from .errors import *", "another name", id="star"),
    ],
)
def test_an_import_that_cannot_be_dropped_is_refused(source, reason):
    with pytest.raises(vendor.CannotVendor, match=rf"^m\.py, line \d: .*{reason}"):
        vendor._section("m", source, ast.parse(f'"""M."""\n{source}'))


@pytest.mark.parametrize("source", ["", "x = []", "if True:\n    __all__ = ['x']"])
def test_a_package_that_does_not_say_its_names_is_refused(source):
    with pytest.raises(vendor.CannotVendor, match="has no __all__"):
        vendor._all(ast.parse(source))


def test_a_block_of_imports_alone_is_passed():
    source = '"""M."""\n\n\ndef f():\n    from .errors import g  # for its effect\n\n\nx = 1\n'
    cut = vendor._section("m", source, ast.parse(source))
    assert cut.endswith("# M.\n\n\ndef f():\n    pass\n\n\nx = 1")


# What it does


def test_it_has_the_names_of_the_package_but_for_the_server(copy):
    assert copy.__all__ == [name for name in lib.__all__ if name not in LEFT_OUT]


def told(thing):
    """Its docstring, and its signature whether the hints in it are text or not."""
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):
        signature = ""
    return inspect.getdoc(thing), re.sub(r"['\"]|\b(?:[a-zA-Z_]\w*\.)+", "", signature)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_that_of_the_package(copy, name):
    ours, theirs = getattr(copy, name), getattr(lib, name)
    assert told(ours) == told(theirs)
    if hasattr(theirs, "__qualname__"):  # else it is an alias of types
        assert ours.__module__ == copy.__name__
    if inspect.isclass(ours):
        for method, value in vars(theirs).items():
            if inspect.isfunction(value) and method != "__annotate_func__":  # of Python 3.14
                assert told(getattr(ours, method)) == told(value), method


@pytest.mark.parametrize(
    "name", [name for name in PUBLIC if inspect.isclass(getattr(lib, name))
             and issubclass(getattr(lib, name), Exception)],
)  # fmt: skip
def test_its_errors_pickle_under_its_name(copy, name):
    error = getattr(copy, name).__new__(getattr(copy, name), "words")
    error.args = ("words",)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is getattr(copy, name)
    assert again.args == ("words",)


@pytest.mark.parametrize("home", ["", "_vendor", "_vendor/deep"])
def test_with_requests_beside_it_it_answers_in_any_package(tmp_path, home):
    (tmp_path / "app" / home).mkdir(parents=True)
    for folder in {tmp_path / "app", tmp_path / "app" / home}:
        (folder / "__init__.py").touch()
    (tmp_path / "app" / home / "chat.py").write_bytes(TEXT.encode())
    package = ".".join(["app", *home.split("/")]).rstrip(".")
    beside = Path(requests.__file__).parent.parent
    code = f"import sys; sys.path[:0] = ['.']; sys.path.append({str(beside)!r})\n"
    with lib.OfflineServer(["Hello.", "One by one."]) as server:
        done = run("-I", "-c", code + USE.format(package=package, module="chat"), server.url,
                   cwd=tmp_path)  # fmt: skip
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == ["Hello.", "One by one.", f"{package}.chat $ False"]


def test_importing_it_loads_nothing_heavy(tmp_path):
    (tmp_path / "x.py").write_bytes(TEXT.encode())
    loaded = loaded_by(f"sys.path[:0] = [{str(tmp_path)!r}]; import x")
    assert "x" in loaded
    assert not {"requests", "urllib3", "http.client", "ssl", "sqlite3", "socket"} & loaded
