"""What the site takes from the rest of the repository: files that pages link to, the command's help, Tensor's methods.

Pages are read on a forge as well, where `../CONTRIBUTING.md` is the right link; such files become part of the site.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import posixpath
import re
import zlib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
_LINK = re.compile(r"(\[[^\]]*\]\()([^)#\s]+)((?:#[^)]*)?\))")
_MADE = re.compile(r"<!-- made: (\w+) -->")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Notes beside the folders, `docs/*.md`, that mkdocs.yml does not list stand at the end of their section."""
    nav: Any = config.nav
    listed = set(re.findall(r"[\w/]+\.md", repr(nav)))
    notes = next(section["Design and kernels"] for section in nav if "Design and kernels" in section)
    notes += sorted(page.name for page in Path(config.docs_dir).glob("*.md") if page.name not in listed)
    return config


def outside(page: str, link: str) -> Path | None:
    """The file that a link of a page leads to, where that is a file of the repository and none of docs/."""
    if ":" in link:
        return None
    target = (ROOT / "docs" / posixpath.dirname(page) / link).resolve()
    if not target.is_file() or not target.is_relative_to(ROOT) or target.is_relative_to(ROOT / "docs"):
        return None
    return target


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/ that pages link to, under `repository/`, as plain text."""
    for file in list(files.documentation_pages()):
        for _, link, _ in _LINK.findall(file.content_string):
            target = outside(file.src_uri, link)
            if target and not files.get_file_from_path(uri(target)):
                files.append(File.generated(config, uri(target), content=target.read_text(encoding="utf-8")))
    return files


def uri(target: Path) -> str:
    return f"repository/{target.relative_to(ROOT).as_posix()}.txt"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def link(match: re.Match) -> str:
        before, to, after = match.groups()
        target = outside(page.file.src_uri, to)
        if not target:
            return match[0]
        return before + posixpath.relpath(uri(target), posixpath.dirname(page.file.src_uri) or ".") + ")"

    return _MADE.sub(lambda match: MAKERS[match[1]](), _LINK.sub(link, markdown))


def commands() -> str:
    """The help of each subcommand."""
    cli = importlib.import_module("cuframe.cli")
    parts = []
    for name in cli.command_names():
        module = importlib.import_module(f"cuframe.cli.{name}")
        width = {"formatter_class": lambda prog: argparse.HelpFormatter(prog, width=100)}
        parser = argparse.ArgumentParser(prog=f"cuframe {name}", description=module.__doc__.splitlines()[0], **width)
        module.add_arguments(parser)
        parts.append(f"## cuframe {name}\n\n```text\n{parser.format_help().strip()}\n```\n")
    return "\n".join(parts)


def methods() -> str:
    """The operations that are methods, and which of them can write into their tensor."""
    cf: Any = importlib.import_module("cuframe")
    tensor = vars(cf.Tensor)
    rows = ["| method | in place | |", "|---|---|---|"]
    for name in sorted(cf.ops.__all__):
        if name not in tensor:
            continue
        text = (getattr(cf, name).__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
        text = re.sub(r"([*<|])", r"\\\1", text)
        written = f"`{name}_`" if f"{name}_" in tensor else ""
        rows.append(f"| [`{name}`][cuframe.{name}] | {written} | {text} |")
    return "\n".join(rows)


MAKERS = {"commands": commands, "methods": methods}


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """The site works without a network, and tells nobody who reads it."""
    kept = r"""<link\b(?![^>]*\brel=["']?(?:canonical|prev|next))[^>]*\bhref="""
    loaded = re.search(rf"""(?:\bsrc=|{kept})["']?(?:https?:)?//[^"'\s>]+""", output)
    if loaded:
        raise PluginError(f"{page.file.src_uri} loads from elsewhere: {loaded[0]}")
    return output


def on_post_build(config: MkDocsConfig) -> None:
    """Fail if a public name has no entry: a page may name a module, and yet nothing be found in it."""
    spec = importlib.util.spec_from_file_location("names", Path(__file__).with_name("names.py"))
    assert spec and spec.loader
    names = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(names)
    inventory = (Path(config.site_dir) / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = {line.split(" ")[0] for line in zlib.decompress(inventory).decode().splitlines()}
    left_out = names.missing(entries)
    if left_out:
        raise PluginError(f"the reference lacks {', '.join(left_out)}")
