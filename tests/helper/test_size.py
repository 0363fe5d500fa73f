"""The root side stays small enough to be read: its lines of code are counted, those that touch the host apart."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

HELPER = Path(__file__).parents[2] / "reconciler/helper"
MOST = 1600
MOST_THAT_ACTS = 900
PURE = {"links.py", "names.py", "nft.py", "policy.py", "protocol.py"}
"""What decides and words, and touches nothing: values in, values out."""
IO = {"os", "socket", "subprocess", "fcntl", "pathlib", "threading", "select", "signal", "ctypes", "time"}
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(source: str) -> int:
    """Lines with anything on them but comments and the docstrings of modules, classes and functions."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            code.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


def test_counting() -> None:
    assert (
        lines_of_code(
            '"""Doc."""\n\n# comment\nx = 1  # one\n\ndef f():\n    """Doc.\n\n    More."""\n    return (\n        1)\n'
        )
        == 4
    )


def test_the_helper_is_small() -> None:
    counted = {path.name: lines_of_code(path.read_text()) for path in HELPER.glob("*.py") if path.name != "client.py"}
    assert sum(counted.values()) <= MOST, counted
    assert sum(lines for name, lines in counted.items() if name not in PURE) <= MOST_THAT_ACTS, counted


def test_what_is_pure_imports_nothing_that_acts() -> None:
    for name in PURE:
        imported: set[str] = set()
        for node in ast.walk(ast.parse((HELPER / name).read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
        assert not imported & IO, name
        ours = {f"{module.rsplit('.', 1)[1]}.py" for module in imported if module.startswith("reconciler.helper.")}
        assert ours <= PURE, name
