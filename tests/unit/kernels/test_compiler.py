import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tercet.kernels.compiler import CompilerUnavailable, load_library

ANSWER = 'extern "C" int answer() { return 42; }'


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_source_is_compiled_once_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    source, cache = write(tmp_path / "answer.cpp", ANSWER), tmp_path / "cache"
    assert load_library(source, cache).answer() == 42
    (library,) = cache.glob("*.so")
    compiled_at = library.stat().st_mtime_ns
    assert load_library(source, cache).answer() == 42
    assert library.stat().st_mtime_ns == compiled_at


def test_a_changed_source_is_compiled_again(tmp_path: Path) -> None:
    source, cache = write(tmp_path / "answer.cpp", ANSWER), tmp_path / "cache"
    assert load_library(source, cache).answer() == 42
    write(source, ANSWER.replace("42", "43"))
    assert load_library(source, cache).answer() == 43
    assert len(list(cache.glob("*.so"))) == 2


def test_callers_that_race_share_one_library(tmp_path: Path) -> None:
    source, cache = write(tmp_path / "answer.cpp", ANSWER), tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: load_library(source, cache), range(4)))
    assert [library.answer() for library in libraries] == [42] * 4
    assert len(list(cache.glob("*.so"))) == 1


def test_a_source_that_does_not_compile_says_so(tmp_path: Path) -> None:
    source = write(tmp_path / "broken.cpp", "this is not C++")
    with pytest.raises(CompilerUnavailable, match="failed"):
        load_library(source, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.so"))


def test_without_a_compiler_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CompilerUnavailable, match="no g"):
        load_library(write(tmp_path / "answer.cpp", ANSWER), tmp_path / "cache")
