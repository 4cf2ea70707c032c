"""What mkdocstrings cannot read from the source: operations that a factory made, and where an example begins.

Griffe reads source without running it. Operations such as `exp = unary("exp", ...)` are assignments to it, and Tensor's
methods are attached at import. Both are taken from the imported package here. Docstrings keep the form that `help()`
shows; doctests become blocks of code and lone asterisks, as in (N, *), stay asterisks.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import griffe

_PAGES = (Path(__file__).resolve().parent.parent / "reference").glob("*.md")
PAGED = {name for page in _PAGES for name in re.findall(r"^::: (\S+)", page.read_text("utf-8"), flags=re.MULTILINE)}
_SECTION = re.compile(r"[A-Z]\w+:$")
_MARKS = re.compile(r"(?<!\\)([*<]|\](?=[\[(]))")


def readable(text: str) -> str:
    """A docstring as Markdown: examples fenced, and what would be taken for emphasis, a tag or a link escaped."""
    lines: list[str] = []
    example = section = False
    for line in text.splitlines():
        if line.startswith(">>> ") and not example:
            example = True
            lines += ["", "```pycon"]
        elif example and not line.strip():
            example = False
            lines.append("```")
        if line and not line.startswith(" "):
            section = bool(_SECTION.match(line))
        formula = line.startswith("    ") and not section
        if formula and lines and lines[-1] and not lines[-1].startswith(" "):
            lines.append("")  # Markdown takes it for a paragraph's next line without
        lines.append(line if example or formula else escaped(line))
    return "\n".join([*lines, "```"] if example else lines)


def escaped(line: str) -> str:
    """`line` with asterisks, angles and neighbouring brackets escaped, except inside of code."""
    parts = re.split(r"(`+[^`]*`+)", line)
    parts[::2] = [_MARKS.sub(r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def public() -> set[int]:
    """The ids of what has a public name: families offer more to one another."""
    spec = importlib.util.spec_from_file_location("names", Path(__file__).with_name("names.py"))
    assert spec and spec.loader
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    return {id(thing) for thing in names.offered().values()}


def as_function(name: str, found: Any, parent: Any) -> griffe.Function:
    """What inspection tells of a function, in the form that griffe gives to those it reads."""
    parameters = [
        griffe.Parameter(
            p.name,
            kind=griffe.ParameterKind(p.kind.description),
            default=None if p.default is p.empty else repr(p.default),
            annotation=None if p.annotation is p.empty else str(p.annotation),
        )
        for p in inspect.signature(found).parameters.values()
    ]
    function = griffe.Function(name, parameters=griffe.Parameters(*parameters), parent=parent)
    function.docstring = griffe.Docstring(
        inspect.getdoc(found) or "", parent=function, parser="google", parser_options={"warnings": False}
    )
    return function


class Docstrings(griffe.Extension):
    """Registered in mkdocs.yml."""

    def __init__(self) -> None:
        super().__init__()
        self.homes: dict[int, Any] = {}
        self.offers: list[tuple[griffe.Module, ModuleType]] = []
        self.public: set[int] = set()

    def on_package(self, *, pkg: griffe.Module, loader: Any, **kwargs: Any) -> None:
        if pkg.name != "cuframe":
            return
        self.public = public()
        self.visit(pkg)
        for module, running in self.offers:
            self.offer(module, running)
        self.finish(pkg)

    def visit(self, module: griffe.Module) -> None:
        if module.name == "__main__":
            return
        try:
            running = importlib.import_module(module.path)
        except ImportError:  # CuPy's side, llvmlite's
            running = ModuleType(module.path)
        offered = getattr(running, "__all__", None)
        if offered is not None:
            module.exports = [name for name in offered if id(getattr(running, name)) in self.public]
            self.offers.append((module, running))
        for name, member in list(module.members.items()):
            if member.is_alias:
                continue
            found = getattr(running, name, None)
            if member.is_module:
                self.visit(member)
            elif member.is_attribute and isinstance(found, FunctionType) and not name.startswith("_"):
                module.set_member(name, as_function(name, found, module))
                self.homes[id(found)] = module.members[name]
            elif (member.is_function or member.is_class) and found is not None:
                self.homes[id(found)] = member
            if member.is_class and module.path == "cuframe.tensor" and name == "Tensor":
                self.attach(member, found)

    def offer(self, module: griffe.Module, running: ModuleType) -> None:
        """Every name of `__all__` leads to where the thing is defined, however it came into the module."""
        for name in running.__all__:
            home = self.homes.get(id(getattr(running, name)))
            member = module.members.get(name)
            # a function hides the submodule of its name, unless a page shows that one
            hidden = member is not None and member.is_module and member.path not in PAGED
            if home is not None and (member is None or member.is_alias or hidden):
                module.set_member(name, griffe.Alias(name, home, parent=module))

    def attach(self, tensor: griffe.Class, running: type) -> None:
        """Methods that are no operations under the same name, which have pages of their own."""
        ops = importlib.import_module("cuframe.ops")
        for name, found in vars(running).items():
            written = name.endswith("_") and hasattr(ops, name[:-1])
            if name.startswith("_") or name in tensor.members or name in ops.__all__ or written:
                continue
            found = found.fget if isinstance(found, property) else found
            if isinstance(found, FunctionType):
                tensor.set_member(name, as_function(name, found, tensor))

    def finish(self, thing: Any) -> None:
        if thing.docstring:
            text = thing.docstring.value
            # what a module notes for those who change it
            thing.docstring.value = readable(text.partition("\nNote [")[0] if thing.is_module else text)
        for member in thing.members.values():
            if not member.is_alias:
                self.finish(member)
