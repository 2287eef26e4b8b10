"""--rank-by: any text is computed as Python computes it, to the last bit, or refused; nothing of it ever runs."""

import ast
import copy
import math
import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mtl_rank.errors import ConfigError, DataError
from mtl_rank.scoring.expression import RankExpression

COLUMNS = ("ctr", "cvr", "price")
FUNCTIONS = {"abs": abs, "min": min, "max": max, "sqrt": math.sqrt, "exp": math.exp, "log": math.log}

values = st.one_of(
    st.floats(0, 1),
    st.floats(-1e3, 1e3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e308, 5e-324]),
)
rows = st.lists(st.tuples(values, values, values), min_size=1, max_size=8)
numbers = st.one_of(st.integers(0, 9), st.integers(0, 10**400), st.floats(0, 1e300)).map(repr)
expressions = st.recursive(
    st.one_of(st.sampled_from(COLUMNS), st.sampled_from(COLUMNS), numbers),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["+", "-", "*", "/", "**", " * ", "**-"]), part).map("".join),
        part.map("({})".format),
        part.map("-{}".format),
        st.tuples(st.sampled_from(["abs", "sqrt", "exp", "log"]), part).map("{0[0]}({0[1]})".format),
        st.tuples(st.sampled_from(["min", "max"]), part, part).map("{0[0]}({0[1]}, {0[2]})".format),
    ),
    max_leaves=8,
)
PIECES = (
    "ctr cvr price 1 0 2.5 1e9 0x1f 1_0 3j ** // lambda if else for in and not is None True __import__ import exec "
    "os system __class__ __subclasses__ abs max log print := await f' #"
)
pieces = st.sampled_from([*PIECES.split(), *"+-*/%()[]{}.,:;@=<>!&|^~'\"\\ \n\t"])
texts = st.one_of(
    expressions,
    st.lists(pieces, max_size=12).map("".join),
    st.lists(pieces, max_size=12).map(" ".join),
    st.text(max_size=30),
)


class _BoundedPowers(ast.NodeTransformer):
    """a ** b becomes power(a, b)."""

    def visit_BinOp(self, node):
        node = self.generic_visit(node)
        if isinstance(node.op, ast.Pow):
            node = ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])
        return node


def power(base, exponent):
    """Python's power, without the whole numbers that it would compute for hours, such as 9 ** 9 ** 9."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > 100_000:
        raise OverflowError
    return base**exponent


def python_value(tree, names):
    tree = ast.fix_missing_locations(_BoundedPowers().visit(ast.Expression(tree)))
    return eval(compile(tree, "expression", "eval"), {"__builtins__": FUNCTIONS | {"power": power}, **names})  # noqa: S307


def in_python(text, row):
    """What Python makes of an expression of the grammar; None where it raises or the result is no finite float."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        value = float(python_value(tree, dict(zip(COLUMNS, row, strict=True))))
    except (ArithmeticError, ValueError, TypeError):
        return None
    return value if math.isfinite(value) else None


def bits(value):
    return struct.pack("<d", value)


def ours(text, table):
    """The values of all rows; None where the text or a row is refused."""
    try:
        expression = RankExpression.parse(text, COLUMNS)
    except ConfigError:
        return None
    columns = {name: np.array(column) for name, column in zip(COLUMNS, zip(*table, strict=True), strict=True)}
    try:
        return expression.evaluate(columns).tolist()
    except DataError:
        return None


@settings(max_examples=400)
@given(texts, rows)
@example("2 ** 1000 * ctr / 2 ** 1000", [(0.3, 0.0, 0.0)])
@example("9 ** 9 ** 9 ** 9 * ctr", [(0.3, 0.0, 0.0)])
@example("(-8) ** (1 / 3) + ctr", [(0.3, 0.0, 0.0)])
@example("ctr ** -1", [(0.0, 0.0, 0.0)])
@example("(-ctr) ** 0.5", [(0.3, 0.0, 0.0)])
@example("max(ctr, cvr) - min(0.0, -ctr)", [(0.0, -0.0, 0.0)])
def test_a_text_is_computed_as_python_does_or_refused(text, table):
    found = ours(text, table)
    if found is None:
        return
    allowed = (
        ast.Expression,
        ast.BinOp,
        ast.UnaryOp,
        ast.Call,
        ast.Constant,
        ast.Name,
        ast.operator,
        ast.unaryop,
        ast.Load,
    )
    assert all(isinstance(node, allowed) for node in ast.walk(ast.parse(text.strip(), mode="eval")))
    for row, value in zip(table, found, strict=True):
        expected = in_python(text, row)
        assert expected is not None
        # Python's -min(0, 0.0) is a whole 0, ours a float -0.0: equal numbers of unequal signs.
        assert bits(value + 0.0) == bits(expected + 0.0)


@settings(max_examples=150)
@given(expressions, rows)
@example("9 ** 9 ** 9 + ctr", [(0.3, 0.0, 0.0)])
def test_what_python_computes_is_not_refused(text, table):
    assume(any(name in text for name in COLUMNS) and len(text) <= 1000)
    assume(None not in [in_python(text, row) for row in table])
    # Ours turns a whole number that meets a column into a float, also where Python need not.
    assume(all(number.bit_length() < 1000 for number in ints_in(text)))
    assert ours(text, table) is not None


def ints_in(text):
    """Every whole number that arises from numbers alone."""
    found = []
    for node in ast.walk(ast.parse(text.strip(), mode="eval")):
        if isinstance(node, ast.expr) and not any(isinstance(part, ast.Name) for part in ast.walk(node)):
            with suppress(ArithmeticError, TypeError):
                found.append(python_value(copy.deepcopy(node), {}))
    return [value for value in found if isinstance(value, int)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an expression"),
        ("ctr *", "not an expression"),
        ("ctr cvr", "not an expression"),
        ("ctr = 1", "not an expression"),
        ("x * ctr", "no column 'x'"),
        ("ctrr", "did you mean 'ctr'"),
        ("1 + 1", "names no column"),
        ("__import__('os').system('true')", "more than numbers"),
        ("(lambda: ctr)()", "more than numbers"),
        ("ctr.real", "more than numbers"),
        ("ctr if ctr else cvr", "more than numbers"),
        ("ctr < cvr", "more than numbers"),
        ("ctr // 2", "more than numbers"),
        ("ctr % 2", "more than numbers"),
        ("[ctr]", "more than numbers"),
        ("'ctr'", "more than numbers"),
        ("ctr * 2j", "more than numbers"),
        ("ctr * True", "True is no number"),
        ("eval(ctr)", "no function 'eval'"),
        ("squrt(ctr)", "did you mean 'sqrt'"),
        ("log(ctr, 2)", "log does not take 2 values"),
        ("max(ctr)", "max does not take 1 values"),
        ("max(*ctr)", "max does not take 1"),
        ("max(ctr, key=cvr)", "more than numbers"),
        ("ctr / 0", "division by zero"),
        ("ctr * 10 ** 400", "too large"),
        ("ctr * 9 ** 9 ** 9", "too large"),
        ("ctr + (-8) ** 0.5", "root of a negative"),
        ("ctr + log(0)", "logarithm of zero"),
        ("(" * 400 + "ctr" + ")" * 400, "not an expression"),
        ("ctr" + "+ctr" * 400, "longer than"),
    ],
)
def test_what_is_refused_at_once_is_told(text, why):
    with pytest.raises(ConfigError, match="--rank-by") as error:
        RankExpression.parse(text, COLUMNS)
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ctr / price", "division by zero"),
        ("price ** -1", "for some candidates"),
        ("(ctr - 1) ** 0.5", "root of a negative"),
        ("log(price)", "logarithm"),
        ("exp(1000 * ctr)", "for some candidates"),
        ("ctr * 1e308 * 1e308", "too large"),
    ],
)
def test_a_row_without_a_value_is_an_error(text, why):
    columns = {"ctr": np.array([0.5, 0.9]), "price": np.array([2.0, 0.0])}
    with pytest.raises(DataError, match="--rank-by") as error:
        RankExpression.parse(text, COLUMNS).evaluate(columns)
    assert why in str(error.value)


def test_a_missing_value_stays_missing_and_disturbs_no_other():
    columns = {"ctr": np.array([0.5, 0.25, 1.0]), "price": np.array([0.0, np.nan, 4.0])}
    found = RankExpression.parse("ctr * max(price, 1)", COLUMNS).evaluate(columns)
    assert found.tolist()[::2] == [0.5, 4.0]
    assert np.isnan(found[1])


@pytest.mark.parametrize(
    "text", ["ctr ** cvr", "ctr * cvr ** 0.5", "exp(ctr) / price", "log(ctr) - price ** -2"]
)
def test_many_rows_are_computed_as_one(text):
    table = np.random.default_rng(3).random((20_000, 3)) + 1e-9
    found = ours(text, table.tolist())
    assert [bits(value) for value in found] == [bits(in_python(text, row)) for row in table.tolist()]
