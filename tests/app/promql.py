"""As much of PromQL as our rules and dashboard use: a strict parser, and an evaluator over what was scraped.

After https://prometheus.io/docs/prometheus/latest/querying: operators by precedence, vector matching on all labels or
those of ``on``, comparisons as filters. What it does not know it refuses, so that nothing is let through unread.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]
Samples = Mapping[tuple[str, Labels], float]
Scrapes = Sequence[tuple[float, Samples]]

TOKEN = re.compile(
    r'\s*(?:(?P<number>\d+(?:\.\d+)?(?![\w.])|\+?Inf\b)|(?P<name>[A-Za-z_:][\w:]*)|(?P<string>"[^"\\]*")'
    r"|(?P<range>\[(?:\d+[smhd]|\$__rate_interval)\])|(?P<symbol>==|!=|<=|>=|[-+*/<>(){},=]))"
)
PRECEDENCE = ({"or"}, {"and"}, {"==", "!=", "<", ">", "<=", ">="}, {"+", "-"}, {"*", "/"})
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
OVER_RANGES = ("last_over_time", "rate", "increase")
FUNCTIONS = ("time", "vector", "sum", *OVER_RANGES)


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Selector:
    name: str
    labels: Labels = ()
    range: str = ""


@dataclass(frozen=True)
class Call:
    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Binary:
    operation: str
    left: Any
    right: Any
    on: tuple[str, ...] | None = None


def parse(text: str) -> Any:
    """Return the expression; raises ValueError where it is none."""
    return _Parser(text).whole()


def selectors(node: Any) -> Iterator[Selector]:
    """Yield every metric that an expression reads."""
    if isinstance(node, Selector):
        yield node
    for part in node.arguments if isinstance(node, Call) else ():
        yield from selectors(part)
    for part in (node.left, node.right) if isinstance(node, Binary) else ():
        yield from selectors(part)


def evaluate(node: Any, scrapes: Scrapes) -> Vector | float:
    """Return what an expression comes to at the time of the last scrape."""
    now, samples = scrapes[-1]
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Selector):
        return {labels: value for (name, labels), value in samples.items() if _matches(node, name, labels)}
    if isinstance(node, Call):
        return _call(node, scrapes, now)
    return _binary(node, evaluate(node.left, scrapes), evaluate(node.right, scrapes))


def _matches(selector: Selector, name: str, labels: Labels) -> bool:
    return name == selector.name and set(selector.labels) <= set(labels)


def _call(node: Call, scrapes: Scrapes, now: float) -> Vector | float:
    if node.function == "time":
        return now
    if node.function == "last_over_time":
        (selector,) = node.arguments
        seconds = int(selector.range[1:-2]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[selector.range[-2]]
        found: Vector = {}
        for at, samples in scrapes:
            if at > now - seconds:
                found |= {
                    labels: value for (name, labels), value in samples.items() if _matches(selector, name, labels)
                }
        return found
    raise ValueError(f"{node.function} is only parsed")


def _binary(node: Binary, left: Vector | float, right: Vector | float) -> Vector | float:
    def key(labels: Labels) -> Labels:
        return labels if node.on is None else tuple(pair for pair in labels if pair[0] in node.on)

    if node.operation in ("and", "or"):
        assert isinstance(left, dict) and isinstance(right, dict)
        others = {key(labels) for labels in right}
        if node.operation == "and":
            return {labels: value for labels, value in left.items() if key(labels) in others}
        return {**right, **left}
    if isinstance(left, float) and isinstance(right, dict):
        left = dict.fromkeys(right, left)
    if isinstance(right, float) and isinstance(left, dict):
        right = dict.fromkeys(left, right)
    assert isinstance(left, dict) and isinstance(right, dict)
    theirs = {key(labels): value for labels, value in right.items()}
    pairs = [(labels, value, theirs[key(labels)]) for labels, value in left.items() if key(labels) in theirs]
    if node.operation in ARITHMETIC:
        return {labels: ARITHMETIC[node.operation](ours, other) for labels, ours, other in pairs}
    return {labels: ours for labels, ours, other in pairs if COMPARISONS[node.operation](ours, other)}


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position, text = 0, text.strip()
        while position < len(text):
            found = TOKEN.match(text, position)
            if not found:
                raise ValueError(f"not understood: {text[position:]!r}")
            self.tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            position = found.end()

    def whole(self) -> Any:
        node = self.operation(0)
        if self.tokens:
            raise ValueError(f"more than an expression: {self.tokens}")
        return node

    def peek(self) -> str:
        return self.tokens[0][1] if self.tokens else ""

    def take(self, *expected: str) -> str:
        if not self.tokens or (expected and self.peek() not in expected):
            raise ValueError(f"expected {expected}, but found {self.peek()!r}")
        return self.tokens.pop(0)[1]

    def operation(self, level: int) -> Any:
        if level == len(PRECEDENCE):
            return self.atom()
        node = self.operation(level + 1)
        while self.peek() in PRECEDENCE[level]:
            operation, on = self.take(), None
            if self.peek() == "on":
                self.take()
                on = tuple(self.listed("(", ")", lambda: self.take()))
            node = Binary(operation, node, self.operation(level + 1), on)
        return node

    def atom(self) -> Any:
        kind = self.tokens[0][0] if self.tokens else ""
        if self.peek() == "(":
            self.take()
            node = self.operation(0)
            self.take(")")
            return node
        if kind == "number":
            return Number(float(self.take()))
        if kind != "name":
            raise ValueError(f"expected a metric or a number, but found {self.peek()!r}")
        name = self.take()
        if self.peek() != "(":
            return self.selector(name)
        if name not in FUNCTIONS:
            raise ValueError(f"no function known here: {name}")
        call = Call(name, tuple(self.listed("(", ")", lambda: self.operation(0))))
        if name in OVER_RANGES and not (len(call.arguments) == 1 and call.arguments[0].range):
            raise ValueError(f"{name} is of a range")
        return call

    def selector(self, name: str) -> Selector:
        labels = self.listed("{", "}", self.label) if self.peek() == "{" else []
        is_range = bool(self.tokens) and self.tokens[0][0] == "range"
        return Selector(name, tuple(labels), self.take() if is_range else "")

    def label(self) -> tuple[str, str]:
        name = self.take()
        self.take("=")
        if self.tokens[0][0] != "string":
            raise ValueError("a label is compared with a string")
        return name, self.take()[1:-1]

    def listed(self, start: str, end: str, item: Callable[[], Any]) -> list[Any]:
        self.take(start)
        items = []
        while self.peek() != end:
            items.append(item())
            if self.peek() != end:
                self.take(",")
        self.take(end)
        return items
