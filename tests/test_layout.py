"""The repository's shape: the linked parts are in the package, and nothing at the top shadows anything."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tercet

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tercet"
PARTS = ("cluster", "kernels", "router", "workers")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_linked_into_the_package(part: str) -> None:
    link = PACKAGE / part
    assert link.is_symlink()
    assert not Path(os.readlink(link)).is_absolute(), "an absolute link breaks in every other clone"
    assert link.resolve() == ROOT / part
    spec = importlib.util.find_spec(f"tercet.{part}")
    assert spec is not None
    assert Path(spec.origin or "").resolve() == ROOT / part / "__init__.py"


def test_the_package_under_test_is_this_checkout() -> None:
    assert Path(tercet.__file__).resolve() == PACKAGE / "__init__.py"


@pytest.mark.parametrize("part", [*PARTS, "proto"])
def test_no_part_can_be_imported_past_the_package(part: str) -> None:
    spec = importlib.util.find_spec(part)
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    inside = [place for place in places if place and not Path(place).is_relative_to(sys.prefix)]
    assert not inside, (
        f"`import {part}` finds {inside}; tests must not run with the root on the path"
    )


def test_the_proto_folder_does_not_shadow_the_package_ray_needs() -> None:
    # Ray puts the driver's working directory first on every worker's path; so does `python -c` here.
    code = "import proto; assert hasattr(proto, 'Message'), proto"
    assert not (ROOT / "proto" / "__init__.py").exists()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_tests_are_no_package_but_where_a_fixture_lives_as_long_as_its_folder() -> None:
    packages = [file.parent for file in (ROOT / "tests").rglob("__init__.py")]
    assert packages == [ROOT / "tests" / "cluster" / "serving"]
