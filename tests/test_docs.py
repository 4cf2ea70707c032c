"""What README, CONTRIBUTING and docs/ say can be done, can be done; and every public name is in the reference."""

from __future__ import annotations

import argparse
import doctest
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cuframe as cf
from tests.docs_runner import FLAGS, blocks, commands
from tests.test_completeness import PUBLIC, SPACES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
every_page = pytest.mark.parametrize("page", PAGES)


def with_code() -> list[Any]:
    """Pages that have Python in them; one that takes longer says so in a comment."""
    marks = {True: [pytest.mark.slow], False: []}
    return [
        pytest.param(page, marks=marks["<!-- slow -->" in text])
        for page, text in PAGES.items()
        if any(language in ("python", "pycon") for language, *_ in blocks(text))
    ]


@pytest.mark.parametrize("page", with_code())
def test_code_runs(page: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "tests" / "docs_runner.py"), str(ROOT / page)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_readme_example_trains() -> None:
    example = blocks(README)[[language for language, *_ in blocks(README)].index("python")][1]
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    # The variance of the sums, and so the first loss, is near 60.
    assert float(done.stdout.removeprefix("loss ")) < 1


def test_paths_in_the_layout_table_exist() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


@every_page
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```|`[^`]*`", "", PAGES[page], flags=re.DOTALL))
    folder = (ROOT / page).parent
    assert [link for link in links if not (folder / link).exists()] == []


@every_page
def test_files_in_the_text_exist(page: str) -> None:
    files = re.findall(r"`((?:benchmarks|cuframe|docs|examples|kernels|tests)/[\w/.]+\.\w+)`", PAGES[page])
    assert [file for file in files if "snake" not in file and not (ROOT / file).exists()] == []


# -- commands ---------------------------------------------------------------------------------------------------------
def shown_commands(text: str) -> list[list[str]]:
    """The words of each command that a console block shows, without what stands behind `|`, `>` and `&&`."""
    found = [words for language, code, *_ in blocks(text) if language == "console" for words in commands(code)]
    return [words[: next((i for i, word in enumerate(words) if word in "|>&&"), None)] for words in found]


def parse(words: list[str]) -> None:
    """Hand a `cuframe` command to its parser."""
    from cuframe.cli import command_names

    if words[0].startswith("-"):
        assert words in (["--help"], ["--version"])
        return
    assert words[0] in command_names()
    parser = argparse.ArgumentParser(prog=f"cuframe {words[0]}")
    importlib.import_module(f"cuframe.cli.{words[0]}").add_arguments(parser)
    parser.parse_args(words[1:])


@every_page
def test_commands_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for words in shown_commands(PAGES[page]):
        words = words[next((i for i, word in enumerate(words) if "=" not in word), 0) :]  # behind settings
        if words[0] == "cuframe":
            parse(words[1:])
        elif words[:3] == ["python", "-m", "cuframe"]:
            parse(words[3:])
        elif words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words
        scripts = [word for word in words if re.match(r"(examples|benchmarks|tests)/\S+\.py", word)]
        assert [s for s in scripts if not (ROOT / s.partition("::")[0]).exists()] == []


@every_page
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    runs = re.findall(r"`make ((?:[a-z-]+ ?)+)", PAGES[page])
    assert {target for run in runs for target in run.split()} <= targets


# -- the reference ----------------------------------------------------------------------------------------------------
def names() -> ModuleType:
    spec = importlib.util.spec_from_file_location("names", ROOT / "docs" / "_build" / "names.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(text: str) -> set[int]:
    """What the directives of a page show: the things that a module offers, or those of them that are named."""
    found = set()
    for name, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", text, flags=re.MULTILINE):
        module = importlib.import_module(name)
        listed = re.search(r"members:\s*\[(.*?)\]", options, flags=re.DOTALL)
        chosen = re.findall(r"\w+", listed[1]) if listed else re.findall(r"- (\w+)", options) or module.__all__
        found |= {id(getattr(module, member)) for member in chosen}
    return found


def test_every_public_name_is_in_the_reference() -> None:
    offered, has_page = names().offered(), names().has_page
    text = "\n".join(text for page, text in PAGES.items() if page.startswith("docs/reference/"))
    pages = shown(text + "\n")
    assert not [name for name, thing in offered.items() if has_page(thing) and id(thing) not in pages]
    constants = [name for name, thing in offered.items() if not has_page(thing)]
    assert len(offered) > 800 and constants
    assert not [name for name in constants if not re.search(rf"`(cf\.)?{name.rpartition('.')[2]}\b", text)]


def found_by_pytest(thing: Any) -> bool:
    """pytest finds examples where things are defined; not of what a factory made or a decorator of others wraps."""
    module = sys.modules[thing.__module__]
    if getattr(module, thing.__name__, None) is not thing:
        return False
    return not inspect.isfunction(thing) or thing.__globals__ is vars(module)


def test_examples_that_pytest_does_not_find() -> None:
    methods = {f"cuframe.Tensor.{name}": method for name, method in vars(cf.Tensor).items() if name[0] != "_"}
    hidden = {
        id(thing): (name, thing)
        for name, thing in {**methods, **names().offered()}.items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__.startswith("cuframe")
        and not found_by_pytest(thing)
    }
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for name, thing in hidden.values():
        runner.run(doctest.DocTestParser().get_doctest(thing.__doc__ or "", {}, name, None, 0))
    known = {"cuframe.ops.exp", "cuframe.nn.utils.get_total_norm", "cuframe.cuda.stream", "cuframe.Tensor.half"}
    assert known <= {name for name, _ in hidden.values()}
    assert len(hidden) > 150 and runner.tries > 220 and not runner.failures


# Public names that have no example in their docstring, each with the reason.
NO_EXAMPLE: dict[str, str] = {}


def test_every_public_name_has_an_example() -> None:
    """Functions and classes; Tensor's methods and properties, but those in place, which do what another one does."""
    members = {
        f"cuframe.Tensor.{name}": member.fget if isinstance(member, property) else member
        for name, member in vars(cf.Tensor).items()
        if name[0] != "_" and not name.endswith("_") and (callable(member) or isinstance(member, property))
    }
    bare = [name for name, thing in {**PUBLIC, **members}.items() if ">>> " not in (thing.__doc__ or "")]
    assert sorted(bare) == sorted(NO_EXAMPLE)
    assert all(len(reason) > 10 for reason in NO_EXAMPLE.values())


def test_examples_for_two_ranks(tmp_path: Path) -> None:
    """In a job of one they do nothing."""
    script = tmp_path / "examples.py"
    script.write_text(f"""
import doctest, sys
import cuframe.distributed as dist

runner = doctest.DocTestRunner(optionflags={FLAGS})
for function in (dist.send, dist.recv, dist.isend, dist.irecv, dist.batch_isend_irecv):
    runner.run(doctest.DocTestParser().get_doctest(function.__doc__, {{}}, function.__name__, None, 0))
assert runner.tries >= 20
sys.exit(runner.failures)
""")
    command = [sys.executable, "-m", "cuframe", "run", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_knows_all_namespaces() -> None:
    assert set(names().SPACES) == set(SPACES)


def test_every_page_is_in_the_navigation() -> None:
    """Notes beside the folders find their place by themselves."""
    listed = {f"docs/{p}" for p in re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])}
    assert listed <= set(PAGES)
    assert {page for page in PAGES if page.count("/") == 2} <= listed
