"""Modules imported from a syntax tree in place of their file: one that was changed, or one that
notes which of its statements are run. This module refuses to know who asks for it.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType, ModuleType

RAN = "__ran__"

Change = Callable[[str, ast.Module], ast.Module]


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module whose tree was changed on the way."""

    def __init__(self, name: str, path: str, change: Change, ran: Callable[[int], None]) -> None:
        super().__init__(name, path)
        self._change = change
        self._ran = ran

    def get_code(self, fullname: str) -> CodeType:
        tree = self._change(fullname, ast.parse(self.get_data(self.path)))
        return compile(tree, self.path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[RAN] = self._ran
        super().exec_module(module)


class Importer:
    """Finds some modules, before anybody else does, and has them changed."""

    def __init__(
        self,
        paths: dict[str, str],
        change: Change,
        ran_of: Callable[[str], Callable[[int], None]] = lambda name: lambda line: None,
    ) -> None:
        self._paths = paths
        self._change = change
        self._ran_of = ran_of

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer as a finder of ``sys.meta_path``."""
        if name not in self._paths:
            return None
        loader = _Loader(name, self._paths[name], self._change, self._ran_of(name))
        return importlib.util.spec_from_file_location(name, self._paths[name], loader=loader)

    def install(self) -> None:
        """Be asked first, from now on."""
        sys.meta_path.insert(0, self)


class _Noting(ast.NodeTransformer):
    """Has every statement of a function say that it is run, before it is."""

    def __init__(self) -> None:
        self._depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if self._depth and isinstance(statements, list) and not isinstance(node, ast.ClassDef):
                noted = []
                for statement in statements:
                    note = ast.parse(f"{RAN}({statement.lineno})").body[0]
                    for each in ast.walk(note):
                        ast.copy_location(each, statement)
                    noted += [note, statement]
                setattr(node, field, noted)
        return node


def noting(name: str, tree: ast.Module) -> ast.Module:
    """Return a tree whose functions note which of their statements are run."""
    noted: ast.Module = _Noting().visit(tree)
    return noted


def put_code(functions: Sequence[FunctionType], tree: ast.Module, line: int, name: str) -> bool:
    """Give functions of one place the code that a changed tree has there; False if none fits."""
    waiting = [compile(tree, functions[0].__code__.co_filename, "exec", dont_inherit=True)]
    while waiting:
        for inner in waiting.pop().co_consts:
            if not isinstance(inner, CodeType):
                continue
            if (inner.co_firstlineno, inner.co_name) != (line, name):
                waiting.append(inner)
                continue
            if any(len(each.__code__.co_freevars) != len(inner.co_freevars) for each in functions):
                return False
            for each in functions:
                each.__code__ = inner
            return True
    return False
