"""Run the code of a page: `python tests/docs_runner.py docs/tutorial/ctc.md`.

All blocks share one namespace, in order. Tracebacks give the lines of the page.

    ```python                   runs
    ```python title="train.py"  is written to that file
    ```console                  is run where it uses such a file
    ```output                   is what the block before it must have printed; `...` stands for anything
    ```pycon                    is a doctest
    ```cpp                      is kept as `SOURCE`, for the kernel that the page goes on with
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<more>[^\n]*)\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(text: str) -> list[tuple[str, str, int, str]]:
    """(language, code, first line, file to write or "") of each block that says its language."""
    found = []
    for m in FENCE.finditer(text):
        title = re.search(r'title="([\w.]+)"', m["more"])
        line = text.count("\n", 0, m.start("code")) + 1
        found.append((m["language"], textwrap.dedent(m["code"]), line, title[1] if title else ""))
    return found


def commands(code: str) -> list[list[str]]:
    """The words of each command of a console block."""
    lines = re.findall(r"^\$ (.*)", code.replace("\\\n", " "), flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def run(page: Path) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for language, code, line, file in blocks(page.read_text(encoding="utf-8")):
        if file:
            Path(file).write_text(code, encoding="utf-8")
        elif language == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("\n" * (line - 1) + code, str(page), "exec"), scope)  # noqa: S102  (our own pages)
            printed = out.getvalue()
            print(printed, end="")
        elif language == "console":
            for words in commands(code):
                if words[0] == "cuframe" and any(Path(word).is_file() for word in words):
                    command = [sys.executable, "-m", *words]
                    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                    printed = done.stdout
                    print(printed, end="")
        elif language == "output":
            if not doctest.OutputChecker().check_output(code, printed, FLAGS):
                raise AssertionError(f"{page}:{line}: the code before printed\n{printed}\ninstead of\n{code}")
        elif language == "pycon":
            test = doctest.DocTestParser().get_doctest(code, scope, page.name, str(page), line - 1)
            if doctest.DocTestRunner(optionflags=FLAGS).run(test, clear_globs=False).failed:
                raise AssertionError(f"{page}:{line}: the example gives something else")
            scope.update(test.globs)
        elif language == "cpp":
            scope["SOURCE"] = code


if __name__ == "__main__":
    run(Path(sys.argv[1]).resolve())
