"""The kernel that `docs/kernels.md` shows runs as it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cuframe as cf

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "kernels.md").read_text()


def test_kernel_in_ten_minutes(device: str) -> None:
    (source,) = re.findall(r"```cpp\n(.*?)```", TEXT, re.DOTALL)
    scope: dict[str, Any] = {"SOURCE": source}
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
        text = re.sub(r"^   ", "", block, flags=re.MULTILINE).replace('"sim"', f'"{device}"')
        exec(compile(text, "kernels.md", "exec"), scope)  # noqa: S102  (the documentation's own code)
    assert scope["y"].tolist() == (cf.arange(1000.0) * 2).tolist()
