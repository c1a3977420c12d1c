"""The whole library as one module, to copy into a project.

    python -m chatgptlib vendor -o chatgptlib.py

The modules stand in it in the order in which they import each other, line by line as they
are here. Gone are their imports of each other, which a single file has no need of, and
the standard library is imported once, at the top. Left out are the command line, the
offline server, and this module.

The same sources give the same bytes, wherever they are read from.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from ..client import __version__
from ..codec import is_list

VENDORED = [
    "errors", "codec", "models", "deltas", "accumulate", "sse", "protocol", "connections", "exchange",
    "replies", "events", "paths", "settings", "client", "stream", "chat",
    "extras.stored", "extras.media", "extras.forms", "extras.schema", "extras.structured",
    "extras.tools", "extras.stores", "extras.conversations", "extras.glific", "extras.webhooks",
]  # fmt: skip

_LICENCE = """\
MIT License

Copyright (c) 2026 the chatgptlib authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""  # as in LICENSE, which is not beside the modules where these are installed
_HOME = (__package__ or "chatgptlib.apps").rpartition(".")[0]
_WIDTH = 100

_HEADER = """\
# chatgptlib {version}: Chat Completions in one module, under any name, for Python 3.10 and newer.
# {licence}; its text is at the end.
# Source: sha256 {digest}
# Made by `python -m chatgptlib vendor -o FILE`. Change the package, then make it again.
# It needs `requests` 2.32.2 with urllib3 2.2, or newer, and nothing else.
#
# Each section was a module. Where one speaks of when it is imported, or of how its
# annotations are evaluated, it means the package: here all is loaded at once, and every
# annotation is text. The command line and the offline server are in the package only.
#
# The rules it keeps are the package's, and not those of the project it is copied into.
# ruff: noqa
# flake8: noqa
# pyright: reportMissingModuleSource=false, reportPrivateUsage=false
"""


class CannotVendor(Exception):
    """The sources are not there, or can't be joined, or the file can't be written."""


def vendored() -> str:
    """The text of the single file. Raises CannotVendor if the sources can't be had."""
    sources = {name: _source(name) for name in (*VENDORED, "__init__")}
    trees = {name: ast.parse(source) for name, source in sources.items()}
    digest = hashlib.sha256("".join(sources.values()).encode()).hexdigest()
    root = trees.pop("__init__")
    kind, _, copyright_line, *_ = _LICENCE.splitlines()
    licence = f"{kind}, {copyright_line}"
    parts = [
        _HEADER.format(version=__version__, licence=licence, digest=digest)
        + (ast.get_source_segment(sources["__init__"], root.body[0]) or ""),
        "from __future__ import annotations",
        _imports(trees),
        _all(root),
        *("\n" + _section(name, sources[name], tree) for name, tree in trees.items()),
        "\n" + _comment("licence", _LICENCE),
    ]
    return "\n\n".join(parts) + "\n"


def _source(name: str) -> str:
    try:
        file = resources.files(_HOME).joinpath(f"{name.replace('.', '/')}.py")
        return file.read_text("utf-8")
    except (OSError, TypeError, NotImplementedError) as error:  # each loader has its own
        raise CannotVendor(f"cannot read the source of {_HOME}.{name}: {error}") from error


def _section(name: str, source: str, tree: ast.Module) -> str:
    """A module without its docstring and its imports, under a banner with the docstring."""
    lines = source.splitlines()
    _blank(lines, tree.body[0], "")
    for node, instead in _cuts(name, tree.body, hoisted=True):
        _blank(lines, node, instead)
    told = _comment(name, ast.get_docstring(tree) or "")
    kept = (line for line in lines if line != _GONE)
    return told + "\n\n\n" + "\n".join(kept).strip("\n")


def _comment(title: str, text: str) -> str:
    """Some text as a comment, under a banner."""
    banner = f"# ---- {title} ".ljust(_WIDTH, "-")
    return "\n".join([banner, "#", *(f"# {line}".rstrip() for line in text.splitlines())])


_GONE = "\0"  # in place of a line; no source can have it


def _blank(lines: list[str], node: ast.stmt, instead: str) -> None:
    """Take a statement out, and the blank lines that set it off from what follows."""
    first, end = node.lineno - 1, node.end_lineno or node.lineno
    lines[first:end] = [_GONE] * (end - first)
    if instead:
        lines[first] = " " * node.col_offset + instead
        return
    while end < len(lines) and not lines[end]:
        lines[end] = _GONE
        end += 1


def _cuts(module: str, body: Sequence[ast.stmt], hoisted: bool) -> Iterator[tuple[ast.stmt, str]]:
    """The statements that are not taken over, each with what stands in its place."""
    gone = [node for node in body if _goes(module, node, hoisted)]
    for node in gone:
        yield node, "pass" if len(gone) == len(body) and node is gone[0] else ""
    for node in body:
        if node not in gone:
            for block in _blocks(node):
                yield from _cuts(module, block, hoisted=_is_for_checkers(node))


def _goes(module: str, node: ast.stmt, hoisted: bool) -> bool:
    """Whether it is an import that the single file does without, or has at its top."""
    if isinstance(node, ast.ImportFrom) and node.level:
        if _imported(module, node) not in VENDORED:
            raise CannotVendor(f"{module}.py, line {node.lineno}: imports what is not vendored")
        if any(alias.asname or alias.name == "*" for alias in node.names):
            raise CannotVendor(f"{module}.py, line {node.lineno}: imports under another name")
        return True
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return hoisted
    if isinstance(node, ast.If) and _is_for_checkers(node):
        return all(_goes(module, one, hoisted) for one in (*node.body, *node.orelse))
    return False


def _imported(module: str, node: ast.ImportFrom) -> str:
    """The module of the package that a relative import names, as VENDORED has it."""
    if node.level > module.count(".") + 1:
        return ""  # outside of the package
    folder = module.rpartition(".")[0] if node.level == 1 else ""
    return f"{folder}.{node.module}".lstrip(".")


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements right inside a statement."""
    for _, value in ast.iter_fields(node):
        parts = list(value) if is_list(value) else []
        if parts and isinstance(parts[0], ast.stmt):
            yield parts
        for part in parts:
            if isinstance(part, (ast.excepthandler, ast.match_case)):
                yield from _blocks(part)


def _is_for_checkers(node: ast.stmt) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _imports(trees: Mapping[str, ast.Module]) -> str:
    """What the modules import from outside, once each; then what type checkers need."""
    always: set[tuple[str, str]] = set()
    checked: set[tuple[str, str]] = set()
    for tree in trees.values():
        always.update(_outside(tree.body))
        for node in tree.body:
            if isinstance(node, ast.If) and _is_for_checkers(node):
                checked.update(_outside(node.body))
    block = "\n".join(f"    {line}" for line in _import_lines(checked - always))
    return "\n".join([*_import_lines(always), "", "if TYPE_CHECKING:", block])


def _outside(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """The imports from outside of the library: a module and a name in it, "" for itself."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((ast.unparse(alias), "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            yield from ((node.module or "", ast.unparse(alias)) for alias in node.names)


def _import_lines(found: set[tuple[str, str]]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for module, name in sorted(found):
        if name:
            names.setdefault(module, []).append(name)
        else:
            yield f"import {module}"
    for module, listed in names.items():
        line = f"from {module} import {', '.join(listed)}"
        if len(line) <= _WIDTH:
            yield line
        else:
            yield from [f"from {module} import (", *(f"    {name}," for name in listed), ")"]


def _all(root: ast.Module) -> str:
    """The package's `__all__` without the names that stayed in the package."""
    left_out = {
        alias.name
        for node in ast.walk(root)
        if isinstance(node, ast.ImportFrom) and node.level and node.module not in VENDORED
        for alias in node.names
    }
    for node in root.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = [name for name in ast.literal_eval(node.value) if name not in left_out]
            return "\n".join(["__all__ = [", *(f'    "{name}",' for name in names), "]"])
    raise CannotVendor("__init__.py has no __all__")


def _write(target: Path, data: bytes) -> None:
    """All of the file or nothing of it, whatever happens meanwhile."""
    target = Path(os.path.realpath(target))
    if target.is_dir():
        raise CannotVendor(f"{target} is a folder: name a file in it")
    if not target.parent.is_dir():
        raise CannotVendor(f"cannot write {target}: there is no folder {target.parent}")
    if target.exists() and not target.is_file():  # a pipe or a device, which is to stay one
        target.write_bytes(data)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        if target.exists():
            shutil.copymode(target, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chatgptlib vendor", description="Write the whole library as one module."
    )
    parser.add_argument("-o", metavar="FILE", type=Path, help="where to (default: standard output)")
    target: Path | None = parser.parse_args(arguments).o
    try:
        data = vendored().encode()
        if target:
            _write(target, data)
        else:
            sys.stdout.buffer.write(data)  # as bytes: the same on every system
            sys.stdout.flush()
    except (CannotVendor, OSError) as error:
        sys.stderr.write(f"chatgptlib vendor: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
