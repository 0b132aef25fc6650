"""The mutants of a module: every small change of its syntax tree that a test should notice.

A mutant is told by its function and by the text that it changes, not by its line, so that it stays
the same when lines move. Left alone is what no program can notice: docstrings, annotations, the
texts of errors, assertions, which are there for the type checker, and what another machine runs.
This module refuses to know which tests there are.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.Pow: ast.Mult,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
NOT_RUN = ("annotation", "returns", "type_params")  # fields that no program runs
NOT_HERE = ("sys.byteorder == 'big'", "sys.version_info", "TYPE_CHECKING")
NOT_MEANT = ("__slots__", "__all__")
NEGATED_ANYWAY = (ast.Compare, ast.UnaryOp, ast.Constant)
SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return, ast.Delete, ast.arguments)
TELLING = (  # whose text says which of many like nodes is meant
    *SIMPLE,
    ast.BinOp,
    ast.BoolOp,
    ast.Call,
    ast.Compare,
    ast.Dict,
    ast.IfExp,
    ast.List,
    ast.ListComp,
    ast.GeneratorExp,
    ast.Subscript,
    ast.Tuple,
    ast.Yield,
)


class Mutant(NamedTuple):
    """One change of a module, not made yet."""

    module: str
    function: str  # qualified name; "" is the module itself
    before: str
    after: str
    line: int  # where the statement begins
    outermost: Function | None  # what has to be compiled anew; None: it runs when it is imported
    holder: ast.AST
    field: str
    number: int | None  # in a field that is a list
    put: ast.AST

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is told by, wherever its lines are."""
        return self.module, self.function, self.before, self.after

    def make(self) -> None:
        """Change the tree that it was found in."""
        put_in(self.holder, self.field, self.number, self.put)


class Change(NamedTuple):
    """What one node may be changed into, and the node whose text shows it."""

    holder: ast.AST
    field: str
    number: int | None
    put: ast.AST
    shown: ast.AST


class Where(NamedTuple):
    """What stands around a node."""

    scopes: tuple[Scope, ...]
    statement: ast.AST
    shown: ast.AST  # the nearest whose text says what is changed, where a node's own does not


def put_in(holder: ast.AST, field: str, number: int | None, node: ast.AST) -> ast.AST:
    """Put a node in a place of the tree; return the one that was there."""
    if number is None:
        before: ast.AST = getattr(holder, field)
        setattr(holder, field, node)
        return before
    listed = getattr(holder, field)
    before, listed[number] = listed[number], node
    return before


def mutants_of(module: str, tree: ast.Module) -> list[Mutant]:
    """Return every mutant of a module, in the order of its lines."""
    found: list[Mutant] = []
    times: Counter[tuple[str, str, str]] = Counter()
    for change, where in changes_of(tree, Where((), tree, tree)):
        before = ast.unparse(change.shown)
        taken = put_in(change.holder, change.field, change.number, change.put)
        after = ast.unparse(change.put if change.shown is taken else change.shown)
        put_in(change.holder, change.field, change.number, taken)
        function = ".".join(scope.name for scope in where.scopes)
        times[function, before, after] += 1
        if times[function, before, after] > 1:
            after += f"  # {times[function, before, after]}"
        outermost = next((scope for scope in where.scopes if isinstance(scope, Function)), None)
        line = getattr(where.statement, "lineno", 0)
        place = (line, outermost, change.holder, change.field, change.number, change.put)
        found.append(Mutant(module, function, before, after, *place))
    return found


def changes_of(node: ast.AST, where: Where) -> Iterator[tuple[Change, Where]]:
    """Yield the changes of all that is below a node, each with what stands around it."""
    for field, value in ast.iter_fields(node):
        if field in NOT_RUN:
            continue
        inside = where
        if isinstance(node, Scope) and field == "body":
            inside = where._replace(scopes=(*where.scopes, node))
        for number, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or is_left_alone(child):
                continue
            around = inside
            if isinstance(child, ast.stmt):
                around = around._replace(statement=child)
            for change in changes_at(node, field, number, child, inside.shown):
                yield change, around
            if isinstance(child, TELLING):
                around = around._replace(shown=child)
            yield from changes_of(child, around)


def is_left_alone(node: ast.AST) -> bool:
    """Say whether nobody could notice a change here, or none is meant to."""
    if isinstance(node, (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, (ast.If, ast.IfExp)):
        return ast.unparse(node.test).startswith(NOT_HERE)
    if isinstance(node, ast.ClassDef):
        return any(ast.unparse(base) == "Protocol" for base in node.bases)
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) in NOT_MEANT
    return False


def changes_at(
    holder: ast.AST, field: str, number: int | None, node: ast.AST, shown: ast.AST
) -> Iterator[Change]:
    """Yield what one node may be changed into."""

    def change(put: ast.AST, seen: ast.AST = node) -> Change:
        put = ast.fix_missing_locations(ast.copy_location(put, node))
        return Change(holder, field, number, put, seen)

    if isinstance(node, ast.Constant):
        if isinstance(holder, ast.While):
            return  # ``while True`` and not a number
        if isinstance(node.value, bool):
            yield change(ast.Constant(not node.value), shown)
        elif isinstance(node.value, int):
            yield change(ast.Constant(node.value + 1), shown)
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            yield Change(node, "ops", place, COMPARISONS[type(operator)](), node)
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield Change(node, "op", None, other, node)
        for place in range(len(node.values)):
            left = [value for index, value in enumerate(node.values) if index != place]
            yield change(left[0] if len(left) == 1 else ast.BoolOp(node.op, left))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield change(node.operand)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in CALLS:
            yield change(
                ast.Call(ast.Name(CALLS[node.func.id], ast.Load()), node.args, node.keywords)
            )
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield Change(node, "op", None, OPERATORS[type(node.op)](), node)
    elif isinstance(node, ast.withitem) and ast.unparse(node).startswith("contextlib.suppress("):
        nothing = ast.parse("contextlib.suppress()", mode="eval").body
        yield Change(node, "context_expr", None, nothing, node)
    elif isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise):
        yield change(ast.ExceptHandler(node.type, node.name, [ast.Raise()]))
    if is_deleted(node):
        yield change(ast.Pass())
    elif isinstance(node, ast.Return) and not isinstance(node.value, (ast.Constant, type(None))):
        yield change(ast.Return(ast.Constant(None)))
    elif isinstance(node, ast.Break):
        yield change(ast.Continue())
    elif isinstance(node, ast.Continue):
        yield change(ast.Break())
    if field in ("test", "ifs") and not isinstance(node, NEGATED_ANYWAY):
        yield change(ast.UnaryOp(ast.Not(), node))  # type: ignore[arg-type]


def is_deleted(node: ast.AST) -> bool:
    """Say whether a statement is one that a program may go on without."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, (ast.Call, ast.Yield, ast.YieldFrom))
    if isinstance(node, ast.Assign):
        targets: list[ast.expr] = []
        for target in node.targets:
            targets += target.elts if isinstance(target, ast.Tuple) else [target]
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)
    if isinstance(node, ast.AnnAssign):
        is_stored = isinstance(node.target, (ast.Attribute, ast.Subscript))
        return is_stored and node.value is not None
    if isinstance(node, ast.Return):
        return node.value is None
    return isinstance(node, (ast.AugAssign, ast.Delete, ast.Raise))
