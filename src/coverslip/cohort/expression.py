"""The language of `cohort.filter`: comparisons of columns with values, and, or, not, in, parentheses. Nothing is run.

    stage != 'IV' and age >= 18
    site in ('A', 'B') or (grade is not None and 1 <= grade < 4)
    `age at diagnosis` > 40

The text is parsed as Python, and only the pieces above are understood. A comparison with a missing value is neither
true nor false (as in SQL), so that a row is never kept because a value is absent; `is None` asks for absence.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from coverslip.base.errors import SettingsError
from coverslip.cohort.table import nearest

Kind = Literal["number", "text", "unknown"]

_COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_EXAMPLE = (
    "Write comparisons of columns, such as \"stage != 'IV' and age >= 18\"; "
    "and, or, not, in (...) and parentheses are understood."
)
_MAX_LENGTH = 2000
_PIECES = re.compile(r"""'[^']*'|"[^"]*"|`([^`]*)`""")
_DATE = re.compile(r"\d{4}-\d{2}(?:-\d{2})?(?:[T ][\d:.]+)?")


def keep_rows(expression: str, frame: pd.DataFrame) -> pd.Series:
    """For each row of `frame` True (kept), False (not met) or NA (a value it needs is missing), as nullable booleans.

    Raises:
        SettingsError: what is written is no such expression, names no column, or compares a number with text.
    """
    return _Filter(expression, frame).rows()


@dataclass(frozen=True)
class _Operand:
    """A column (values an array as long as the table) or a constant, and what kind of values it holds."""

    name: str
    kind: Kind
    values: Any
    is_column: bool


class _Filter:
    def __init__(self, text: str, frame: pd.DataFrame) -> None:
        self.text = text
        self.frame = frame
        self.quoted: dict[str, str] = {}

    def rows(self) -> pd.Series:
        if len(self.text) > _MAX_LENGTH:
            raise self._error(f"is longer than {_MAX_LENGTH} characters")
        source = _PIECES.sub(self._placeholder, self.text.strip())
        try:
            tree = ast.parse(source, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or "nested too deep"
            raise self._error(
                f"cannot be read ({reason})",
                fix=f"{_EXAMPLE} Column names with spaces, points or Python's own words go between `backticks`.",
            ) from error
        return self._condition(tree.body)

    def _placeholder(self, match: re.Match[str]) -> str:
        # Only `names in backticks` are replaced; quoted texts are matched so that a backtick inside them is left alone.
        if match[1] is None:
            return match[0]
        name = f"_column_{len(self.quoted)}_"
        self.quoted[name] = match[1].strip()
        return name

    def _condition(self, node: ast.expr) -> pd.Series:
        if isinstance(node, ast.BoolOp):
            result, *others = [self._condition(value) for value in node.values]
            for other in others:
                result = result & other if isinstance(node.op, ast.And) else result | other
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._condition(node.operand)
        if isinstance(node, ast.Compare):
            result = pd.Series(True, index=self.frame.index, dtype="boolean")
            left = node.left
            for op, right in zip(node.ops, node.comparators):
                result = result & self._comparison(left, op, right)
                left = right
            return result
        if isinstance(node, ast.Name):
            name = self._column(node.id).name
            raise self._error(f"has {name!r} alone", fix=f"Compare it with something: {name} == 1.")
        raise self._error(f"has {ast.unparse(node)!r}, which is no comparison")

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pd.Series:
        if isinstance(op, (ast.Is, ast.IsNot)):
            return self._absence(left, right, absent=isinstance(op, ast.Is))
        if isinstance(op, (ast.In, ast.NotIn)):
            return self._membership(left, right, negate=isinstance(op, ast.NotIn))
        symbol, compare = _COMPARE[type(op)]
        a, b = self._operand(left), self._operand(right)
        self._check(a, b, symbol)
        return self._compared(a, b, compare)

    def _compared(self, a: _Operand, b: _Operand, compare: Callable[[Any, Any], Any]) -> pd.Series:
        length = len(self.frame)
        x = a.values if a.is_column else [a.values] * length
        y = b.values if b.is_column else [b.values] * length
        unknown = [_missing(p) or _missing(q) for p, q in zip(x, y)]
        truth = [not gap and bool(compare(p, q)) for p, q, gap in zip(x, y, unknown)]
        result = pd.Series(truth, index=self.frame.index, dtype="boolean")
        return result.mask(np.array(unknown, dtype=bool))

    def _membership(self, left: ast.expr, right: ast.expr, *, negate: bool) -> pd.Series:
        if not isinstance(right, (ast.Tuple, ast.List, ast.Set)) or not right.elts:
            raise self._error("has 'in' without a list of values", fix="Write: stage in ('I', 'II').")
        result = pd.Series(False, index=self.frame.index, dtype="boolean")
        for element in right.elts:
            result = result | self._comparison(left, ast.Eq(), element)
        return ~result if negate else result

    def _absence(self, left: ast.expr, right: ast.expr, *, absent: bool) -> pd.Series:
        column = self._operand(left)
        if not column.is_column or not (isinstance(right, ast.Constant) and right.value is None):
            raise self._error("has an 'is' that does not ask for a missing value", fix="Write: age is not None.")
        missing = [_missing(value) for value in column.values]
        return pd.Series([gap == absent for gap in missing], index=self.frame.index, dtype="boolean")

    def _operand(self, node: ast.expr) -> _Operand:
        if isinstance(node, ast.Name):
            return self._column(node.id)
        value = _constant(node)
        if isinstance(value, bool):
            # The table reader writes yes-no columns as these two words.
            return _Operand(repr(value), "text", str(value), is_column=False)
        if isinstance(value, (int, float)):
            return _Operand(repr(value), "number", value, is_column=False)
        if isinstance(value, str):
            return _Operand(repr(value), "text", value, is_column=False)
        raise self._error(f"has {ast.unparse(node)!r}, which is neither a column, a number nor a text in quotes")

    def _column(self, name: str) -> _Operand:
        name = self.quoted.get(name, name)
        if name not in self.frame.columns:
            raise self._error(f"names {name!r}, which the table has not", fix=nearest(name, self.frame.columns))
        series = self.frame[name]
        if series.isna().all():
            return _Operand(name, "unknown", series.tolist(), is_column=True)
        kind: Kind = "number" if pd.api.types.is_numeric_dtype(series) else "text"
        return _Operand(name, kind, series.tolist(), is_column=True)

    def _check(self, a: _Operand, b: _Operand, symbol: str) -> None:
        if not a.is_column and not b.is_column:
            raise self._error(
                f"compares {a.name} with {b.name}: neither is a column", fix="Texts need quotes, columns none."
            )
        if "unknown" not in (a.kind, b.kind) and a.kind != b.kind:
            column, other = (a, b) if a.is_column else (b, a)
            first = next(value for value in column.values if not _missing(value))
            raise self._error(
                f"compares column {column.name!r}, which holds {column.kind} (such as {first!r}), with {other.name}",
                fix="Compare texts with texts in quotes and numbers with numbers.",
            )
        if symbol not in ("==", "!=") and "text" in (a.kind, b.kind):
            self._check_dates(a, b, symbol)

    def _check_dates(self, a: _Operand, b: _Operand, symbol: str) -> None:
        # Year-first dates sort right as text; "II" < "III" < "IV" < "IX" would be right by luck alone.
        for side in (a, b):
            for value in side.values if side.is_column else [side.values]:
                if not _missing(value) and not _DATE.fullmatch(str(value)):
                    raise self._error(
                        f"asks whether text is {symbol} text: {value!r} has no order",
                        fix="List the values that are meant: stage in ('III', 'IV'). Dates like 2020-12-31 have one.",
                    )

    def _error(self, problem: str, *, fix: str = _EXAMPLE) -> SettingsError:
        return SettingsError(f"cohort.filter = {self.text!r} {problem}.", fix=fix)


def _constant(node: ast.expr) -> object:
    """The number, text or truth value that is written; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    return None


def _missing(value: object) -> bool:
    return value is None or value != value
