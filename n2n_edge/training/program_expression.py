"""Which texts are arithmetic of symbols and numbers: what torch writes for a symbolic size, and SymPy evaluates."""

import ast
import re

__all__ = ["is_arithmetic"]

_SYMBOL = re.compile(r"[A-Za-z_]{1,16}\d*", re.ASCII)
_FUNCTIONS = frozenset(
    {
        "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloorDiv",
        "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "Integer", "IntTrueDiv", "FloatTrueDiv", "Le",
        "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne", "Not", "Or", "Piecewise",
        "PythonMod", "Rational", "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat",
        "TruncToFloat", "TruncToInt", "Unequality", "Where",
    }
)  # fmt: skip
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_CALLED = _FUNCTIONS | _POWERS
_ARITHMETIC = re.compile(r"[\w ()+\-*/%<>=!,.']+", re.ASCII)
_LONGEST_EXPRESSION = 4000
_LARGEST_POWER = 8
_CONSTANTS = frozenset({"True", "False", "true", "false", "oo", "int_oo"})
_PLAIN_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.keyword,
    ast.Load, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not, ast.And,
    ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE,
)  # fmt: skip


def is_arithmetic(text: str) -> bool:
    """Tell whether `text` is arithmetic of symbols and numbers, of a size that SymPy works out at once."""
    if len(text) > _LONGEST_EXPRESSION or not _ARITHMETIC.fullmatch(text):
        return False
    try:
        tree = ast.parse(text, mode="eval")
        texts = sum(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(tree))
        named = sum(_is_symbol(node) for node in ast.walk(tree))
        return texts == named and all(_is_plain(node) for node in ast.walk(tree)) and not _nests_powers(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _is_plain(node: ast.AST) -> bool:
    if not isinstance(node, _PLAIN_NODES):
        return False
    if isinstance(node, ast.Name):
        return node.id in _CALLED or node.id in _CONSTANTS or bool(re.fullmatch(r"[a-z]+\d+", node.id))
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return bool(_SYMBOL.fullmatch(node.value))
        return isinstance(node.value, bool) or (isinstance(node.value, int | float) and abs(node.value) < 2**64)
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", "") in _CALLED
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)
    return True


def _is_symbol(node: ast.AST) -> bool:
    """Tell whether this is ``Symbol('name')``, the one place for a text."""
    if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Symbol" or len(node.args) != 1:
        return False
    return isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)


def _nests_powers(tree: ast.AST) -> bool:
    """Tell whether a power has an exponent that isn't a small number, or another power within."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            parts = [node.left, node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS:
            parts = list(node.args)
        else:
            continue
        if len(parts) != 2 or not _is_small(parts[1]) or any(_is_power(inner) for inner in ast.walk(parts[0])):
            return True
    return False


def _is_small(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and len(node.args) == 1 and getattr(node.func, "id", "") == "Integer":
        node = node.args[0]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and node.value <= _LARGEST_POWER


def _is_power(node: ast.AST) -> bool:
    return (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)) or (
        isinstance(node, ast.Call) and getattr(node.func, "id", "") in _POWERS
    )
