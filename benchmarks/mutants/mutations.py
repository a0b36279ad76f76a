"""The single changes a file allows, with mutmut's operators and a few more.

Not changed, by rule: annotations, docstrings and other strings that stand alone, imports, decorators, `__all__`,
version strings, `if TYPE_CHECKING`, `if __name__ == "__main__"`, everything inside `raise` and `assert` (what is said
of an error), log calls, `print` and `warnings.warn`, help of command lines, strings with blanks in them (prose), upper
and lower case of strings.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
import libcst.matchers as m
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

LOGGERS = {"logging", "logger", "log", "_log", "LOG", "LOGGER", "warnings"}
UNTOUCHED = {"print", "cast", "TypeVar", "NewType"}
HELP = {"help", "metavar", "description", "epilog"}


@dataclass(frozen=True)
class Mutant:
    """One changed place of one file.

    Arguments:
        path: The file, relative to the root.
        line: First line that changes, counted from 1.
        span: First and last line of the statement it belongs to (of its head, where it is a block).
        deferred: Whether the place runs when a function is called, not when the module is imported.
        before, after: The changed lines.
        start, end, text: The bytes replaced and what replaces them.
        id: What the change is, whatever its line number.
    """

    path: str
    line: int
    span: tuple[int, int]
    deferred: bool
    before: str
    after: str
    start: int
    end: int
    text: bytes
    id: str

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.text + source[self.end :]


def drop_term(node: cst.BinaryOperation) -> Iterator[cst.CSTNode]:
    """`a + b` becomes `a`, `a * b` becomes `a`: a term or a factor is forgotten."""
    if isinstance(node.operator, cst.Add | cst.Subtract | cst.Multiply | cst.Divide):
        yield node.left


def first_string(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    """Only the first of mutmut's changes to a string, other letter cases say nothing new; and none to prose."""
    if isinstance(node, cst.SimpleString) and not any(sign.isspace() for sign in node.value):
        yield from itertools.islice(operator_string(node), 1)


def arguments(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Arguments dropped or None, except where that can only raise."""
    if not m.matches(node.func, m.Name("len") | m.Name("isinstance")):
        yield from operator_arg_removal(node)


def drop_call(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """A call made for its effect alone is forgotten."""
    if isinstance(node.value, cst.Call):
        yield cst.Expr(cst.Ellipsis())


def force_branch(node: cst.If) -> Iterator[cst.CSTNode]:
    """The condition of an `if` never holds."""
    yield cst.Name("False")


REPLACED = {operator_string: first_string, operator_arg_removal: arguments}
OPERATORS = [(kind, REPLACED.get(operator, operator)) for kind, operator in mutation_operators]
OPERATORS += [(cst.BinaryOperation, drop_term), (cst.Expr, drop_call)]


def skipped(node: cst.CSTNode) -> bool:
    """Whether the rules above leave this node and all below it alone."""
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.Raise | cst.Assert):
        return True
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.BaseString)
    if isinstance(node, cst.If):
        return m.matches(node.test, m.Name("TYPE_CHECKING") | m.Attribute(attr=m.Name("TYPE_CHECKING"))) or m.matches(
            node.test, m.Comparison(left=m.Name("__name__"))
        )
    if isinstance(node, cst.Assign):
        names = [target.target.value for target in node.targets if isinstance(target.target, cst.Name)]
        return any(name == "__all__" or "version" in name.lower() for name in names) and (
            "__all__" in names or isinstance(node.value, cst.BaseString)
        )
    if isinstance(node, cst.Arg):
        return node.keyword is not None and node.keyword.value in HELP
    if isinstance(node, cst.Call):
        if isinstance(node.func, cst.Name):
            return node.func.value in UNTOUCHED
        return m.matches(node.func, m.Attribute(value=m.Name())) and node.func.value.value in LOGGERS
    return False


class Finder(cst.CSTVisitor):
    """Collects (node, changed node, statement's lines, deferred) over a module."""

    METADATA_DEPENDENCIES = (ByteSpanPositionProvider, PositionProvider)

    def __init__(self) -> None:
        self.found: list[tuple[cst.CSTNode, cst.CSTNode, tuple[int, int], bool]] = []
        self.spans: list[tuple[cst.CSTNode, tuple[int, int]]] = []
        self.depth = 0
        self.deferring: list[cst.CSTNode] = []

    def lines(self, node: cst.CSTNode) -> tuple[int, int]:
        where = self.get_metadata(PositionProvider, node)
        return where.start.line, where.end.line

    def on_visit(self, node: cst.CSTNode) -> bool:
        if skipped(node):
            return False
        if isinstance(node, cst.SimpleStatementLine):
            self.spans.append((node, self.lines(node)))
        elif isinstance(node, cst.BaseCompoundStatement):
            first, last = self.lines(node)
            body = node.cases[0] if isinstance(node, cst.Match) else node.body
            self.spans.append((node, (first, max(first, min(last, self.lines(body)[0] - 1)))))
        elif isinstance(node, cst.ExceptHandler | cst.Else | cst.MatchCase):
            first = self.lines(node)[0]
            self.spans.append((node, (first, first)))
        # A function's body and a lambda run later; its defaults and decorators run where they stand.
        if isinstance(node, cst.BaseSuite) and self.deferring and self.deferring[-1] is node:
            self.depth += 1
        if isinstance(node, cst.FunctionDef):
            self.deferring.append(node.body)
        if self.spans:
            for kind, operator in OPERATORS:
                if isinstance(node, kind):
                    for changed in operator(node):
                        self.found.append((node, changed, self.spans[-1][1], self.depth > 0))
            if isinstance(node, cst.If):
                for changed in force_branch(node):
                    self.found.append((node.test, changed, self.spans[-1][1], self.depth > 0))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self.spans and self.spans[-1][0] is original_node:
            self.spans.pop()
        if self.deferring and self.deferring[-1] is original_node:
            self.deferring.pop()
            self.depth -= 1


def deferred_lines(source: bytes) -> set[int]:
    """Lines inside functions: those that coverage by a test says something about."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    positions = wrapper.resolve(PositionProvider)
    inside: set[int] = set()
    for node in list(positions):
        if isinstance(node, cst.FunctionDef):
            body = positions[node.body]
            inside.update(range(body.start.line, body.end.line + 1))
    return inside


def indent(text: str) -> int:
    """Blanks before the second line of a text."""
    line = text.split("\n")[1]
    return len(line) - len(line.lstrip())


def mutants(path: str, source: bytes) -> list[Mutant]:
    """All changes of a file that the rules allow, in the file's order."""
    wrapper = MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)
    finder = Finder()
    wrapper.visit(finder)
    spans = wrapper.resolve(ByteSpanPositionProvider)
    module, seen, times, made = wrapper.module, set(), Counter(), []
    for node, changed, lines, deferred in finder.found:
        at = spans[node]
        start, end = at.start, at.start + at.length
        here = source[start:end].decode()
        old, new = module.code_for_node(node).strip(), module.code_for_node(changed).strip()
        if getattr(node, "lpar", None) and not here.strip().startswith("("):  # the place of (a + b) is that of a + b
            bare = {"lpar": (), "rpar": ()}
            old = module.code_for_node(node.with_changes(**bare)).strip()
            new = module.code_for_node(changed.with_changes(**bare)).strip()
        if "\n" in old and "\n" in here:  # code of a node begins at the margin
            margin = "\n" + " " * (indent(here) - indent(old))
            old, new = old.replace("\n", margin), new.replace("\n", margin)
        if here.strip() != old:
            continue  # a node without text of its own, like an implied comma, or with text of several lines in quotes
        text = here.replace(old, new).encode()
        if (start, end, text) in seen:
            continue
        seen.add((start, end, text))
        head = source.rfind(b"\n", 0, start) + 1
        tail = source.find(b"\n", end)
        tail = len(source) if tail < 0 else tail
        before = source[head:tail].decode().split("\n")
        after = (source[head:start] + text + source[end:tail]).decode().split("\n")
        line = source.count(b"\n", 0, head) + 1
        while len(before) > 1 and len(after) > 1 and before[0] == after[0]:
            before, after, line = before[1:], after[1:], line + 1
        while len(before) > 1 and len(after) > 1 and before[-1] == after[-1]:
            before, after = before[:-1], after[:-1]
        old_text, new_text = "\n".join(before), "\n".join(after)
        if old_text == new_text:
            continue
        what = f"{path}\0{old_text.strip()}\0{new_text.strip()}"
        times[what] += 1
        name = hashlib.sha256(f"{what}\0{times[what]}".encode()).hexdigest()[:12]
        made.append(Mutant(path, line, lines, deferred, old_text, new_text, start, end, text, name))
    return made


def sample(found: list[Mutant], seed: int) -> list[Mutant]:
    """All mutants in the order in which a seed draws them: every statement once before any a second time.

    The order depends on what the changes are, not on where they stand: a change elsewhere moves none of them.
    """

    def drawn(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed}\0{mutant.id}".encode()).hexdigest()

    rounds: Counter[tuple[str, tuple[int, int]]] = Counter()
    order = []
    for mutant in sorted(found, key=drawn):
        place = (mutant.path, mutant.span)
        order.append((rounds[place], mutant))
        rounds[place] += 1
    return [mutant for _, mutant in sorted(order, key=lambda pair: pair[0])]
