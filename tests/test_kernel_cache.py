"""The cache of compiled kernels: what is not whole, or not ours, is not used."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from cuframe.cuda.cache import Cache, digest


def test_digest_keeps_parts_apart() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", b"b") == digest(b"a", "b")


def test_write_and_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kernels")
    assert cache.read("a.cubin") is None
    path = cache.write("a.cubin", b"code")
    assert cache.read("a.cubin") == b"code"
    assert cache.find("a.cubin") == path
    assert path.read_bytes().startswith(b"code")  # so that a loader can take the file as it is
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"x" + d[1:], lambda d: b"", lambda d: d + b"x"])
def test_damaged_files_are_not_used(tmp_path: Path, damage: object) -> None:
    cache = Cache(tmp_path / "kernels")
    path = cache.write("a.so", b"code" * 100)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.read("a.so") is None
    assert cache.find("a.so") is None
    assert not path.exists()


def test_linked_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(RuntimeError, match="is a symbolic link; remove it, or set CUFRAME_CACHE_DIR"):
        Cache(tmp_path / "link").write("a", b"")


def test_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(RuntimeError, match="others may write into .*; chmod go-w"):
        Cache(folder).read("a")


def test_foreign_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernels"
    Cache(folder).write("a", b"")
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(RuntimeError, match=f"belongs to user {mine}"):
        Cache(folder).read("a")


def test_linked_file_is_not_used(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kernels")
    path = cache.write("a", b"code")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.read("a") is None


def test_many_writers(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kernels")
    seen: list[bytes | None] = []

    def work() -> None:
        for _ in range(20):
            cache.write("a", b"code" * 1000)
            seen.append(cache.read("a"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(seen) == {b"code" * 1000}
    assert [f.name for f in cache.files()] == ["a"]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "kernels")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write("a", b"code")
    assert list(cache.files()) == []


def test_clear(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kernels")
    cache.write("a", b"code")
    cache.write("b", b"code")
    assert cache.clear() == (2, 2 * (4 + 32))
    assert list(cache.files()) == []
