"""What README and CONTRIBUTING say can be done, can be done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_readme_example_trains():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    command = [sys.executable, "-W", "error", "-c", example]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    # The variance of the sums, and so the first loss, is near 60.
    assert float(done.stdout.removeprefix("loss ")) < 1


def test_contributed_operation_has_both_derivatives():
    (definition,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)
    script = f"""
import cuframe as cf
from cuframe.ops.define import unary
{definition.strip()}
x = cf.tensor([-2.0, -0.5, 1.0], dtype=cf.float64, requires_grad=True)
assert cf.autograd.gradcheck(softsign, (x,)) and cf.autograd.gradgradcheck(softsign, (x,))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_paths_in_the_layout_table_exist():
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_make_targets_exist(text):
    runs = re.findall(r"make ((?:[a-z-]+ ?)+)", "\n".join(code(text)))
    mentioned = {target for run in runs for target in run.split()}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert "test" in mentioned
    assert mentioned <= targets


def code(text):
    """Every line that shows a command: console blocks and inline code."""
    return re.findall(r"(?:`|^\$ )(make [^`#\n]*)", text, flags=re.MULTILINE)
