"""The single file: made from the package alone, and equal to it in all that it contains."""

import ast
import builtins
import configparser
import functools
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
from pathlib import Path
from unittest import mock

import pytest
import requests

from . import lib, loaded_by
from .conftest import in_the_gate
from .test_package import CORE, DOORS, EXTRAS, FOLDER, LADDER, imported

if lib.name != "chatgptlib":
    pytest.skip("about the package itself", allow_module_level=True)

from chatgptlib.apps import vendor


@functools.cache
def vendored(*extras):
    """The file with these extras; made once, since each takes a fraction of a second."""
    return vendor.vendored(extras)


CORE_TEXT = vendored()
TEXT = vendored("all")
TREE = ast.parse(TEXT)
EITHER = pytest.mark.parametrize("text", [CORE_TEXT, *in_the_gate(TEXT)], ids=["core", "all"])
EXTRA_NAMES = sorted(name.removeprefix("extras.") for name in EXTRAS)
SOME_EXTRAS = ["media"]
EACH_EXTRA = pytest.mark.parametrize(
    "extra",
    [
        name if name in SOME_EXTRAS else pytest.param(name, marks=pytest.mark.gate)
        for name in EXTRA_NAMES
    ],
)
COMMAND = "python -m chatgptlib vendor"

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


def imported_from(folder, name, text):
    """A file with this text, imported under this name."""
    (folder / f"{name}.py").write_bytes(text.encode())
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The file with all extras, imported under another name."""
    yield imported_from(tmp_path_factory.mktemp("copy"), "under_another_name", TEXT)
    del sys.modules["under_another_name"]


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The file with the core alone, imported under another name."""
    yield imported_from(tmp_path_factory.mktemp("core"), "core_alone", CORE_TEXT)
    del sys.modules["core_alone"]


def sections(text):
    """The names of a file's sections, and the line of each, by its banners."""
    lines = enumerate(text.splitlines(), 1)
    found = ((re.match(r"# ---- ([\w.]+) -+$", line), number) for number, line in lines)
    return {banner[1]: number for banner, number in found if banner}


def extras_in(text):
    return sorted(name.removeprefix("extras.") for name in sections(text) if "." in name)


def source_of(name):
    return FOLDER.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")


def run(*arguments, **more):
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **more,
    )  # fmt: skip


# What the file looks like


def test_the_core_is_in_every_file_and_every_extra_in_that_with_all():
    assert sections(CORE_TEXT).keys() == {*CORE, "licence"}
    assert sections(TEXT).keys() == {*CORE, *EXTRAS, "licence"}


def test_a_module_comes_after_the_modules_that_it_imports_at_load_time():
    order = [*sections(TEXT)]
    for name in (*CORE, *EXTRAS):
        for node in ast.parse(source_of(name)).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert order.index(imported(name, node)) < order.index(name)


@EITHER
def test_the_file_begins_with_its_version_command_hash_and_licence(text):
    name, made, digest, licence, *_ = text.splitlines()
    assert name.startswith(f"# chatgptlib {lib.__version__}: ")
    option = "" if text == CORE_TEXT else " --with all"
    assert made.startswith(f"# Made by `{COMMAND}{option} -o FILE`.")
    others = text.replace(f"{digest}\n", "")
    assert digest.split()[-1] == hashlib.sha256(others.encode()).hexdigest()
    told = FOLDER.parent / "LICENSE"
    if told.exists():
        kind, _, copyright = told.read_text("utf-8").splitlines()[:3]
        assert licence == f"# {kind}, {copyright}; its text is at the end."
        end = "".join(f"# {line}".rstrip() + "\n" for line in told.read_text("utf-8").splitlines())
        assert text.endswith(f"#\n{end}")


def test_the_file_names_the_oldest_supported_dependencies():
    setup = FOLDER.parent / "setup.cfg"
    if not setup.exists():
        pytest.skip("only a checkout has it")
    config = configparser.ConfigParser()
    config.read(setup)
    floors = re.findall(r"(\w+) *>= *([\d.]+)", config["options"]["install_requires"])
    assert [name for name, _ in floors] == ["requests", "urllib3"]
    opening = CORE_TEXT.partition('"""')[0]
    for name, floor in floors:
        assert re.search(rf"\b{name}`? {re.escape(floor)}\b(?!\.\d)", opening), (name, floor)


@EITHER
def test_the_table_of_contents_has_the_line_and_summary_of_each_section(text):
    opening = text.partition('"""')[0]
    rows = re.findall(r"(?m)^# +(\d+)  ([\w.]+) +(.*)$", opening)
    assert {name: int(line) for line, name, _ in rows} == sections(text)
    for _, name, about in rows[:-1]:
        assert about == ast.get_docstring(ast.parse(source_of(name))).splitlines()[0]
    assert "# fmt: off" in opening.splitlines()


@EITHER
def test_the_file_exports_the_public_names_that_it_contains(text):
    tree, defined = ast.parse(text), set()
    for node in tree.body:
        defined.update([node.name] if hasattr(node, "name") else [])
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                defined.add(target.id)
                if target.id == "__all__":
                    exported = ast.literal_eval(node.value)
    assert exported == [name for name in lib.__all__ if name in defined]
    assert {"create_chat_completion", "OpenAIClient"} <= {*exported}


# Its extras


@EACH_EXTRA
def test_an_extra_comes_with_the_extras_that_it_imports_and_no_others(extra):
    needed, todo = set(), [extra]
    while todo:
        name = f"extras.{todo.pop()}"
        needed.add(name.removeprefix("extras."))
        for node in ast.walk(ast.parse(source_of(name))):
            if isinstance(node, ast.ImportFrom) and node.level:
                room, _, one = imported(name, node).rpartition(".")
                todo += [one] if room == "extras" and one not in needed else []
    assert extras_in(vendored(extra)) == sorted(needed)


def test_conversations_bring_their_stores_and_tools_their_schemas():
    assert {"conversations", "stores"} <= set(extras_in(vendored("conversations")))
    assert "stores" not in extras_in(vendored("tools"))
    assert "schema" in extras_in(vendored("tools"))


def test_the_same_extras_in_any_order_and_with_their_needs_named_give_the_same_bytes():
    text = vendored("conversations", "media")
    assert vendored("media", "stores", "conversations", "media") == text
    assert f"# Made by `{COMMAND} --with conversations,media -o FILE`." in text
    assert vendored("media", "all") == vendored(*EXTRA_NAMES) == TEXT


def test_the_order_of_the_folder_does_not_matter(monkeypatch):
    home = vendor.resources.files("chatgptlib")

    class Reversed(type(home)):
        def iterdir(self):
            return sorted(super().iterdir(), reverse=True)

    monkeypatch.setattr(vendor.resources, "files", lambda package: Reversed(home))
    assert vendor.vendored(["all"]) == TEXT


@EACH_EXTRA
def test_the_command_in_a_file_makes_that_file(extra):
    text = vendored(extra)
    (named,) = re.findall(r"(?m)^# Made by `.* --with (\S+) -o FILE`", text)
    assert vendored(*named.split(",")) == text


def test_an_unknown_extra_is_an_error_that_lists_the_known_ones(tmp_path, capsys):
    assert vendor.main(["--with", "tools,pictures", "-o", str(tmp_path / "x.py")]) == 1
    told = capsys.readouterr().err
    assert "no extra 'pictures'" in told
    assert all(name in told for name in (*EXTRA_NAMES, "all"))
    assert not (tmp_path / "x.py").exists()


def is_for_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_the_core_imports_an_extra_only_where_a_function_or_a_hint_needs_it():
    for name in CORE:
        tree = ast.parse(source_of(name))
        places = [
            one for one in ast.walk(tree)
            if isinstance(one, ast.FunctionDef) or is_for_checkers(one)
        ]  # fmt: skip
        lazy = {node for place in places for node in ast.walk(place)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level and node not in lazy:
                assert not imported(name, node).startswith("extras."), (name, node.lineno)


def test_the_core_says_which_extra_is_missing_and_how_to_add_it(core):
    with core.OpenAIClient("sk-x", base_url="http://127.0.0.1:9") as client:
        for extra, needing in {
            "media": lambda: core.ChatMessage.user("Look.", images=b"\x89PNG\r\n\x1a\n"),
            "rest": lambda: client.get("models"),
        }.items():
            with pytest.raises(core.ConfigError) as caught:
                needing()
            command = f"`{COMMAND} --with {extra} -o FILE`"
            assert str(caught.value) == f"core_alone was made without {extra}: {command} adds it"
            assert extra in extras_in(vendored(extra))
    assert core.ChatMessage.user("Look.", images=()).text == "Look."


def test_the_command_that_adds_an_extra_keeps_the_present_ones():
    text = vendored("tools", "webhooks")
    assert f"`{COMMAND} --with media,tools,webhooks -o FILE` adds it" in text
    assert "was made without" not in TEXT


def test_the_list_shows_the_size_and_the_dependencies_of_each_extra(capsys):
    assert vendor.main(["--list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    told = [re.fullmatch(r"((?:\S+|\(the core\)) +[\d,]+) +([\d,]+) *(.*)", row) for row in rows]
    assert {len(row[1]) for row in told} == {head.index("lines") + 5}
    sizes = {}
    for row in told:
        extra, lines = re.fullmatch(r"(.*?) +([\d,]+)", row[1]).groups()
        sizes[extra] = int(lines.replace(",", "")), int(row[2].replace(",", ""))
        if extra in EXTRA_NAMES:
            source = source_of(f"extras.{extra}")
            assert sizes[extra] == (len(source.splitlines()), len(source.encode()))
            assert row[3].startswith(ast.get_docstring(ast.parse(source)).splitlines()[0])
            if extra not in SOME_EXTRAS:  # what an extra needs takes a file
                continue
            needs = [name for name in extras_in(vendored(extra)) if name != extra]
            told_needs = re.search(r" Needs (.*)\.$", row[3])
            assert sorted(told_needs[1].split(", ") if told_needs else []) == sorted(needs)
    assert [*sizes] == ["(the core)", *EXTRA_NAMES, "all"]
    core, all_of_it = sizes["(the core)"], sizes["all"]
    extras = [sizes[name] for name in EXTRA_NAMES]
    assert all_of_it == tuple(map(sum, zip(core, *extras, strict=True)))


def test_the_list_makes_no_file(monkeypatch):
    """To make a file for the size of each extra would take seconds."""
    monkeypatch.setattr(vendor._File, "text", lambda self: pytest.fail("a file was made"))
    assert vendor.main(["--list"]) == 0


# Its text


def test_the_file_has_the_docstring_of_the_package_and_one_future_import():
    assert ast.get_docstring(TREE) == inspect.getdoc(lib.modules[0])
    assert TEXT.count("from __future__ import annotations") == 1


def test_the_docstring_of_every_module_becomes_a_comment():
    for name in (*CORE, *EXTRAS):
        doc = ast.get_docstring(ast.parse(source_of(name)))
        assert "\n#\n" + "".join(f"# {line}".rstrip() + "\n" for line in doc.splitlines()) in TEXT


@pytest.mark.parametrize("name", [*CORE, *EXTRAS])
def test_every_line_except_imports_and_docstrings_is_in_the_file_in_order(name):
    section = TEXT.splitlines()[sections(TEXT)[name] :]
    source = source_of(name)
    gone = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr) and node.lineno == 1
        ):
            gone.update(range(node.lineno, node.end_lineno + 1))
    for number, line in enumerate(source.splitlines(), 1):
        if number not in gone and line and line not in ("else:", "if TYPE_CHECKING:"):
            assert line in section, number
            del section[: section.index(line) + 1]  # they are in the same order


def test_the_core_is_the_same_in_both_but_for_what_needs_an_extra():
    ends = {len(CORE_TEXT.splitlines()), *sections(CORE_TEXT).values()}
    differing = set()
    for name, start in sections(CORE_TEXT).items():
        end = min(number for number in ends if number > start) - 1
        ours = CORE_TEXT.splitlines()[start:end]
        if "\n".join(ours) not in TEXT:
            differing.add(name)
            assert any("was made without" in line for line in ours)
    assert differing == {name for name, _ in DOORS}


@EITHER
def test_no_import_of_the_package_is_left_and_the_others_stand_at_the_top(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.ImportFrom) and node.level), node.lineno
    imports = [isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body]
    assert not any(imports[imports.index(False, 1) :])


def test_no_top_level_name_stands_for_two_things():
    """A name that one module imports is seen by all, for example in place of a builtin."""
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


@pytest.mark.gate
@pytest.mark.versions
def test_the_same_sources_give_the_same_bytes():
    assert vendor.vendored() == CORE_TEXT
    done = run("-m", "chatgptlib", "vendor", "--with", "all", cwd=FOLDER.parent)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == TEXT.encode()


@pytest.mark.gate
@pytest.mark.versions
def test_a_zipped_package_gives_the_same_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "chatgptlib.whl", "w") as wheel:
        for path in FOLDER.rglob("*.py"):
            wheel.writestr(
                str(path.relative_to(FOLDER.parent)), path.read_bytes().replace(b"\n", b"\r\n")
            )
    code = "import sys; sys.path.insert(0, 'chatgptlib.whl'); from chatgptlib.apps import vendor; sys.exit(vendor.main())"
    done = run("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == CORE_TEXT.encode()


def test_missing_sources_are_an_error_that_leaves_the_file_unchanged(tmp_path, monkeypatch, capsys):
    target = tmp_path / "x.py"
    target.write_text(CORE_TEXT)
    empty = tmp_path / "no_sources"
    (empty / "extras").mkdir(parents=True)
    monkeypatch.setattr(vendor.resources, "files", lambda package: empty)
    assert vendor.main(["-o", str(target)]) == 1
    told = capsys.readouterr().err
    assert told == f"chatgptlib: cannot find the sources of chatgptlib in {empty}\n"
    monkeypatch.setattr(vendor.resources, "files", lambda package: tmp_path / "nowhere")
    assert vendor.main(["-o", str(target)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("chatgptlib: cannot read the sources of chatgptlib: ")
    assert target.read_text() == CORE_TEXT


# Where it is written


def written(target, *arguments):
    """Run the command with `-o`, but with a cached text. Returns the exit code."""
    with mock.patch.object(vendor, "vendored", lambda extras: vendored(*extras)):
        return vendor.main(["-o", str(target), *arguments])


def older(text):
    """The file that an older version would have written: another text, under its own hash."""
    return signed(text.replace(f"# chatgptlib {lib.__version__}:", "# chatgptlib 0.0.9:"))


def signed(text):
    """A file with its hash brought up to date, as only the command does."""
    name, made, digest, *others = text.splitlines(keepends=True)
    text = "".join([name, made, *others])
    digest = f"{digest.rpartition(' ')[0]} {hashlib.sha256(text.encode()).hexdigest()}\n"
    return "".join([name, made, digest, *others])


FOREIGN = {
    "a-program": "print('mine')\n",
    "a-program-that-names-the-command": f"# {COMMAND} -o FILE\nprint('mine')\n",
    "binary": "\0\x89\r\n",
    "spaces": " \n",
}
EDITED = {
    "a-line-appended": CORE_TEXT + "print('mine')\n",
    "a-line-in-front": "#!/usr/bin/env python3\n" + CORE_TEXT,
    "a-letter-changed": CORE_TEXT.replace("def create_chat_completion(", "def create_chat_completioN("),
    "another-selection-named": CORE_TEXT.replace("vendor -o", "vendor --with tools -o", 1),
    "another-version-named": CORE_TEXT.replace(f"chatgptlib {lib.__version__}:", "chatgptlib 9:", 1),
    "of-an-older-version": older(CORE_TEXT) + "print('mine')\n",
    "cut-off": CORE_TEXT[: len(CORE_TEXT) // 2],
}  # fmt: skip
UNTOUCHED = {
    "core": CORE_TEXT,
    "all": TEXT,
    "of-an-older-version": older(CORE_TEXT),
    "of-a-newer-version": signed(
        CORE_TEXT.replace(f"chatgptlib {lib.__version__}:", "chatgptlib 99.0:", 1)
    ),
    "with-an-extra-that-is-no-more": signed(
        CORE_TEXT.replace("vendor -o", "vendor --with telepathy -o", 1)
    ),
    "with-line-ends-of-windows": CORE_TEXT.replace("\n", "\r\n"),
    "empty": "",
}


@pytest.mark.parametrize("there", [*FOREIGN.values(), *EDITED.values()], ids=[*FOREIGN, *EDITED])
def test_a_foreign_or_edited_file_is_replaced_only_with_force(tmp_path, capsys, there):
    target = tmp_path / "x.py"
    target.write_bytes(there.encode())
    assert written(target) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"chatgptlib: {target} was ")
    assert "--force" in told
    assert told.count("\n") == 1
    assert target.read_bytes() == there.encode()
    assert written(target, "--force") == 0
    assert target.read_bytes() == CORE_TEXT.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]


@pytest.mark.parametrize("there", UNTOUCHED.values(), ids=UNTOUCHED)
def test_an_unedited_file_that_the_command_wrote_is_replaced(tmp_path, there):
    target = tmp_path / "x.py"
    target.write_bytes(there.encode())
    assert written(target, "--with", "media") == 0
    assert target.read_text() == vendored("media")


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path, monkeypatch, capsys):
    target = tmp_path / "x.py"
    target.write_text(TEXT)
    with monkeypatch.context() as patched:
        patched.setattr(vendor.os, "replace", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            written(target)
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]
    assert target.read_text() == TEXT
    assert written(target) == 0
    assert target.read_bytes() == CORE_TEXT.encode()
    assert written(tmp_path / "nowhere" / "x.py") == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert written(tmp_path) == 1
    assert f"{tmp_path} is not a regular file" in capsys.readouterr().err


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path):
    target = tmp_path / "x.py"
    target.touch(0o640)
    target.chmod(0o640)
    assert written(target) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("there", [True, False], ids=["to-a-file", "to-nothing"])
def test_nothing_is_written_through_a_link_in_place_of_the_temporary_file(
    tmp_path, monkeypatch, capsys, there
):
    victim = tmp_path / "victim"
    if there:
        victim.write_text("what was there")
    monkeypatch.setattr(vendor, "token_hex", lambda size: "guessed")
    planted = tmp_path / ".x.py.guessed"
    planted.symlink_to(victim)
    assert written(tmp_path / "x.py") == 1
    assert "File exists" in capsys.readouterr().err
    assert planted.is_symlink()  # it is not ours to remove
    assert victim.exists() == there
    assert not there or victim.read_text() == "what was there"
    assert not (tmp_path / "x.py").exists()


def test_the_name_of_the_temporary_file_cannot_be_known_before(tmp_path, monkeypatch):
    names = []
    replace = os.replace
    monkeypatch.setattr(vendor.os, "replace", lambda a, b: (names.append(a.name), replace(a, b)))
    for _ in range(2):
        assert written(tmp_path / "x.py") == 0
    assert len({*names}) == 2
    assert all(re.fullmatch(r"\.x\.py\.[0-9a-f]{16}", name) for name in names)


def test_a_link_to_a_file_stays_and_the_file_is_replaced(tmp_path, capsys):
    file, link = tmp_path / "file.py", tmp_path / "link.py"
    file.write_text(TEXT)
    link.symlink_to(file)
    assert written(link) == 0
    assert link.is_symlink()
    assert file.read_text() == CORE_TEXT
    file.write_text("mine")
    assert written(link) == 1
    assert f"{file} was not written by" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_replaced(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert written(tmp_path / "pipe", "--force") == 1
    assert "leave out -o" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


# The check of a file


def checked(path):
    return vendor.main(["--check", str(path)])


@pytest.mark.parametrize(
    ("extras", "newline"),
    [
        pytest.param([], "\r\n", id="core-crlf"),
        pytest.param(["tools"], "\n", id="tools"),
        pytest.param(["conversations", "media"], "\n", id="two-extras"),
        pytest.param(["all"], "\n", id="all"),
    ],
)
def test_check_reports_a_file_of_this_version_as_up_to_date(tmp_path, capsys, extras, newline):
    target = tmp_path / "x.py"
    target.write_bytes(vendored(*extras).replace("\n", newline).encode())
    assert checked(target) == 0
    told = capsys.readouterr().out
    assert told == f"{target} is up to date: chatgptlib {lib.__version__} would write the same\n"


@pytest.mark.parametrize(
    ("text", "status", "verdict"),
    [
        pytest.param(
            UNTOUCHED["of-an-older-version"], 3,
            f"was written by another chatgptlib, 0.0.9 (this is {lib.__version__})", id="older",
        ),
        pytest.param(
            UNTOUCHED["of-a-newer-version"], 3,
            f"was written by another chatgptlib, 99.0 (this is {lib.__version__})", id="newer",
        ),
        pytest.param(
            signed(CORE_TEXT.replace(f"{lib.__version__}:", f"{lib.__version__}rc1:", 1)), 3,
            f"was written by another chatgptlib, {lib.__version__}rc1 (this is {lib.__version__})",
            id="before-this",
        ),
        pytest.param(
            signed(CORE_TEXT.replace("def ", "async def ")), 3,
            f"was written by another chatgptlib, {lib.__version__}", id="other-sources",
        ),
        pytest.param(
            UNTOUCHED["with-an-extra-that-is-no-more"], 3,
            f"was written by another chatgptlib, {lib.__version__}", id="other-extras",
        ),
        pytest.param(
            EDITED["a-letter-changed"], 4,
            f"was edited after chatgptlib {lib.__version__} wrote it", id="edited",
        ),
        pytest.param(
            EDITED["a-line-in-front"], 4,
            f"was edited after chatgptlib {lib.__version__} wrote it", id="a-line-in-front",
        ),
        pytest.param(
            EDITED["another-selection-named"], 4,
            f"was edited after chatgptlib {lib.__version__} wrote it", id="another-selection-named",
        ),
        pytest.param(
            EDITED["of-an-older-version"], 4,
            f"was edited after chatgptlib 0.0.9 wrote it (this is {lib.__version__})",
            id="older-and-edited",
        ),
        *(
            pytest.param(text, 5, f"was not written by `{COMMAND}`", id=f"foreign-{name}")
            for name, text in {**FOREIGN, "empty": ""}.items()
        ),
    ],
)  # fmt: skip
def test_check_distinguishes_files_of_other_versions_edited_and_foreign_files(
    tmp_path, capsys, text, status, verdict
):
    target = tmp_path / "x.py"
    target.write_bytes(text.encode())
    assert checked(target) == status
    assert capsys.readouterr().out == f"{target} {verdict}\n"
    assert target.read_bytes() == text.encode()


def test_every_status_of_a_check_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        vendor.main(["--help"])
    told = capsys.readouterr().out
    assert re.findall(r"(?m)^  (\d)  FILE ", told) == ["0", "3", "4", "5"]
    assert re.search(r"(?m)^  1  FILE\b.* can't be read", told)


def test_check_of_an_unreadable_file_is_an_error_without_a_verdict(tmp_path, capsys):
    path = tmp_path / "nothing.py"
    assert checked(path) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"chatgptlib: cannot read or write {path}: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [["--check", "x.py", "-o", "y.py"], ["--list", "-o", "y.py"], ["--check", "x.py", "--list"],
     ["--check", "x.py", "--with", "tools"], ["--list", "--with", "tools"]],
)  # fmt: skip
def test_contradicting_arguments_are_a_usage_error(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        vendor.main(arguments)
    assert caught.value.code == 2
    assert not [*tmp_path.iterdir()]


# What the file does


def documented(thing):
    """Its docstring, and its signature whether the hints in it are text or not."""
    try:
        signature = str(inspect.signature(thing))
    except (TypeError, ValueError):
        signature = ""
    return inspect.getdoc(thing), re.sub(r"['\"]|\b(?:[a-zA-Z_]\w*\.)+| at 0x\w+", "", signature)


@pytest.mark.parametrize("name", sorted(lib.__all__))
def test_each_public_name_has_the_docstring_and_signature_of_the_package(copy, name):
    ours, theirs = getattr(copy, name), getattr(lib, name)
    assert documented(ours) == documented(theirs)
    if hasattr(theirs, "__qualname__"):  # else it is an alias of types
        assert ours.__module__ == copy.__name__
    if inspect.isclass(ours):
        for method, value in vars(theirs).items():
            if inspect.isfunction(value) and method != "__annotate_func__":  # of Python 3.14
                assert documented(getattr(ours, method)) == documented(value), method


@pytest.mark.parametrize(
    "name", [name for name in sorted(lib.__all__) if inspect.isclass(getattr(lib, name))
             and issubclass(getattr(lib, name), Exception)],
)  # fmt: skip
def test_errors_of_the_file_pickle_under_the_name_of_its_module(copy, name):
    error = getattr(copy, name).__new__(getattr(copy, name), "words")
    error.args = ("words",)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is getattr(copy, name)
    assert again.args == ("words",)


@pytest.mark.parametrize(
    ("home", "text"),
    [
        pytest.param("", CORE_TEXT, id="beside"),
        pytest.param("_vendor", TEXT, id="in-a-package", marks=pytest.mark.gate),
        pytest.param("_vendor/deep", CORE_TEXT, id="deeper", marks=pytest.mark.gate),
    ],
)
def test_the_file_works_in_any_package_with_only_requests_installed(tmp_path, home, text):
    (tmp_path / "app" / home).mkdir(parents=True)
    for folder in {tmp_path / "app", tmp_path / "app" / home}:
        (folder / "__init__.py").touch()
    (tmp_path / "app" / home / "chat.py").write_bytes(text.encode())
    package = ".".join(["app", *home.split("/")]).rstrip(".")
    beside = Path(requests.__file__).parent.parent
    code = f"import sys; sys.path[:0] = ['.']; sys.path.append({str(beside)!r})\n"
    with lib.OfflineServer(["Hello.", "One by one."]) as server:
        done = run("-I", "-c", code + USE.format(package=package, module="chat"), server.url,
                   cwd=tmp_path)  # fmt: skip
    assert done.stderr == b""
    assert done.stdout.decode().splitlines() == ["Hello.", "One by one.", f"{package}.chat $ False"]


def test_importing_the_file_loads_nothing_heavy(tmp_path):
    (tmp_path / "x.py").write_bytes(TEXT.encode())
    loaded = loaded_by(f"sys.path[:0] = [{str(tmp_path)!r}]; import x")
    assert "x" in loaded
    assert not {"requests", "urllib3", "http.client", "ssl", "sqlite3", "socket"} & loaded


# The tests that a file with the core alone skips


def test_the_core_file_has_every_core_name_that_the_tests_use(core):
    """Otherwise a test would be skipped there, as if the name were that of an extra."""
    owners = {}
    for module in LADDER:
        for node in ast.parse(source_of(module)).body:
            targets = getattr(node, "targets", [getattr(node, "target", node)])
            owners.update((getattr(one, "name", getattr(one, "id", "")), module) for one in targets)
    asked = set()
    for path in Path(__file__).parent.glob("*.py"):
        asked.update(re.findall(r"\blib\.(\w+)", path.read_text("utf-8")))
    assert len(asked) > 80
    for name in asked & owners.keys():
        assert hasattr(core, name) == (owners[name] in CORE), name
