"""Arithmetic over the columns of a scores table, such as `ctr * cvr ** 0.5`: its own small grammar, never `eval`.

Numbers, names of columns, `+ - * / **`, brackets, and abs, min, max, sqrt, exp and log. The text is parsed with
Python's parser; every node that is not in the grammar is refused, and the rest is computed here.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from mtl_rank.errors import ConfigError, DataError, did_you_mean

Doubles = npt.NDArray[np.float64]
Value = int | float | Doubles

_LONGEST = 1_000
_MOST_BITS = 4_096
_OPTION = "--rank-by"


class _NoValue(ArithmeticError):
    """An operation has no value in Python either: a division by zero, a root of a negative number."""


@dataclass(frozen=True)
class RankExpression:
    """A checked expression. names: the columns that it reads."""

    text: str
    tree: ast.expr
    names: tuple[str, ...]

    @staticmethod
    def parse(text: str, columns: Iterable[str]) -> "RankExpression":
        """Check a text. columns: the names that it may use.

        Raises:
            ConfigError: the text is not in the grammar, names an unknown column or none at all, or a part of it
                without columns has no value.
        """
        tree = _parsed(text)
        names = tuple(dict.fromkeys(_names(text, tree)))
        known = list(columns)
        for name in names:
            if name not in known:
                raise _refusal(text, f"no column {name!r}; {did_you_mean(name, known)}")
        if not names:
            raise _refusal(text, f"it names no column, and ranks nothing; {did_you_mean('', known)}")
        expression = RankExpression(text, tree, names)
        try:
            expression._compute(tree, {name: np.empty(0) for name in names})
        except ArithmeticError as error:
            raise _refusal(text, str(error)) from None
        return expression

    def evaluate(self, columns: Mapping[str, Doubles]) -> Doubles:
        """What Python computes from the floats of each row, to the last bit; NaN where a column it reads is NaN.

        columns: (N,) each, at least those in `names`. Returns (N,).

        Raises:
            DataError: for some row Python would raise an error, or the result is no finite number.
        """
        known = ~np.any([np.isnan(columns[name]) for name in self.names], axis=0)
        result = np.full(known.shape, np.nan)
        try:
            result[known] = self._compute(self.tree, {name: columns[name][known] for name in self.names})
        except ArithmeticError as error:
            raise DataError(f"{_OPTION} {self.text!r}: {error} for some candidates") from None
        if not np.isfinite(result[known]).all():
            raise DataError(f"{_OPTION} {self.text!r}: too large for some candidates")
        return result

    def _compute(self, node: ast.expr, columns: Mapping[str, Doubles]) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.Name(id=name):
                return columns[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._compute(operand, columns)
            case ast.UnaryOp(operand=operand):
                return self._compute(operand, columns)
            case ast.BinOp(left=left, op=operation, right=right):
                apply = _OPERATORS[type(operation)]
                return _in_range(apply(self._compute(left, columns), self._compute(right, columns)))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return _FUNCTIONS[name][0](*[self._compute(each, columns) for each in arguments])
        raise AssertionError(ast.dump(node))


def _parsed(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise _refusal(text[:40] + "...", f"longer than {_LONGEST} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _refusal(text, "not an expression; write one such as ctr * cvr ** 0.5") from None


def _names(text: str, node: ast.expr) -> Iterable[str]:
    """The names in a tree. Raises ConfigError for anything that is not in the grammar."""
    match node:
        case ast.Constant(value=bool() as truth):
            raise _refusal(text, f"{truth} is no number")
        case ast.Constant(value=int() | float()):
            return
        case ast.Name(id=name):
            yield name
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            yield from _names(text, operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow(), right=right):
            yield from _names(text, left)
            yield from _names(text, right)
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in _FUNCTIONS:
            fewest, most = _FUNCTIONS[function][1:]
            if not fewest <= len(arguments) <= most:
                raise _refusal(text, f"{function} does not take {len(arguments)} values")
            for argument in arguments:
                yield from _names(text, argument)
        case ast.Call(func=ast.Name(id=function), keywords=[]):
            raise _refusal(text, f"no function {function!r}; {did_you_mean(function, _FUNCTIONS)}")
        case _:
            part = ast.get_source_segment(text.strip(), node) or text
            raise _refusal(text, f"{part[:40]!r} is more than numbers, columns, + - * / ** and brackets")


def _refusal(text: str, why: str) -> ConfigError:
    return ConfigError(f"{_OPTION} {text!r}: {why}")


def _is_scalar(*values: Value) -> bool:
    return not any(isinstance(value, np.ndarray) for value in values)


def _float(value: Value) -> float | Doubles:
    """As Python turns an int into a float; raises OverflowError when it cannot."""
    return value if isinstance(value, np.ndarray) else float(value)


def _in_range(value: Value) -> Value:
    if isinstance(value, complex):
        raise _NoValue("a root of a negative number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise _NoValue("a number too large")
    return value


def _exact(operation: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """+, - and *, which NumPy rounds as Python does; ints meet each other as ints."""

    def apply(left: Value, right: Value) -> Value:
        if _is_scalar(left, right):
            return operation(left, right)
        with np.errstate(all="ignore"):
            return operation(_float(left), _float(right))

    return apply


def _divide(left: Value, right: Value) -> Value:
    if np.any(right == 0):
        raise _NoValue("division by zero")
    return _exact(operator.truediv)(left, right)


def _power(base: Value, exponent: Value) -> Value:
    match base, exponent:
        case int(), int() if base.bit_length() * exponent > _MOST_BITS:
            raise _NoValue("a number too large")
    if _is_scalar(base, exponent):
        value: Value = base**exponent
        return value
    return _each(operator.pow, base, exponent)


def _each(function: Callable[..., float], *values: Value) -> Value:
    """A function row by row: NumPy's own pow, exp and log differ from Python's in the last bit."""
    columns = np.broadcast_arrays(*[_float(value) for value in values])
    try:
        found = list(map(function, *[column.tolist() for column in columns]))
        return np.array(found, dtype=np.float64)
    except TypeError:
        # A negative number to the power of a fraction is complex in Python.
        raise _NoValue("a root of a negative number") from None


def _of_one(function: Callable[[float], float], what: str) -> Callable[[Value], Value]:
    def apply(value: Value) -> Value:
        try:
            return function(value) if not isinstance(value, np.ndarray) else _each(function, value)
        except ValueError:
            raise _NoValue(what) from None

    return apply


def _larger(left: Value, right: Value) -> Value:
    if _is_scalar(left, right):
        return max(left, right)
    # As Python chooses: the first, unless the second is larger.
    a, b = _float(left), _float(right)
    return np.where(b > a, b, a)


def _smaller(left: Value, right: Value) -> Value:
    if _is_scalar(left, right):
        return min(left, right)
    a, b = _float(left), _float(right)
    return np.where(b < a, b, a)


_OPERATORS: dict[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: _exact(operator.add),
    ast.Sub: _exact(operator.sub),
    ast.Mult: _exact(operator.mul),
    ast.Div: _divide,
    ast.Pow: _power,
}

# Each with the fewest and the most values that it takes.
_FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (lambda *values: reduce(_smaller, values), 2, 16),
    "max": (lambda *values: reduce(_larger, values), 2, 16),
    "sqrt": (_of_one(math.sqrt, "a root of a negative number"), 1, 1),
    "exp": (_of_one(math.exp, "a number too large"), 1, 1),
    "log": (_of_one(math.log, "a logarithm of zero or less"), 1, 1),
}
