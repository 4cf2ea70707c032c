"""Where cuframe is installed and keeps its files: kernel sources that ship with it, and the per-user cache."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def checkout_root() -> Path | None:
    """Return the root of the source checkout cuframe runs from, or None for an installed wheel."""
    root = _PACKAGE.parent
    return root if (root / "setup.py").is_file() and (root / "kernels").is_dir() else None


def installed_from() -> Path | None:
    """Return the checkout that `pip install .` made this installation from, or None where there was none."""
    import json  # these take milliseconds, which only an error message spends
    from importlib import metadata
    from urllib.parse import unquote, urlparse

    try:
        url = urlparse(json.loads(metadata.distribution("cuframe").read_text("direct_url.json") or "{}").get("url", ""))
    except (metadata.PackageNotFoundError, ValueError):
        return None
    folder = Path(unquote(url.path))
    return folder if url.scheme == "file" and (folder / "setup.py").is_file() else None


def install_command(extra: str) -> str:
    """Return the pip command that adds `extra` to this installation."""
    root = checkout_root()
    if root is not None:
        return f"pip install -e '{root}[{extra}]'"
    return f"pip install '{installed_from() or 'cuframe'}[{extra}]'"


def kernels_dir() -> Path:
    """Return the folder that holds the device sources (`.cu`, `.cuh`).

    A wheel carries them as `cuframe/_kernels`; a checkout and an editable install have them in the top-level
    `kernels/`. The wheel's place is looked at first: in site-packages, a sibling `kernels` is someone else's.

    Raises FileNotFoundError, naming both places, when neither exists.

    >>> kernels_dir().is_dir()
    True
    """
    packaged = _PACKAGE / "_kernels"
    if packaged.is_dir():
        return packaged
    root = checkout_root()
    if root is not None:
        return root / "kernels"
    raise FileNotFoundError(
        f"kernels_dir: no kernel sources in {packaged} or {_PACKAGE.parent / 'kernels'}; reinstall cuframe"
    )


def cache_dir() -> Path:
    """Return the per-user cache folder, which need not exist yet.

    `CUFRAME_CACHE_DIR` wins, then `XDG_CACHE_HOME/cuframe`, then `~/.cache/cuframe`.
    """
    override = os.environ.get("CUFRAME_CACHE_DIR")
    if override:
        return Path(override).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cuframe"


def kernel_cache_dir() -> Path:
    """Return the folder for compiled kernels, inside `cache_dir()`."""
    return cache_dir() / "kernels"
