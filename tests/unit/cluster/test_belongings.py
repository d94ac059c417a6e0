"""Who may be cleared up after: launchers of this user and boot that are provably dead, and nobody else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tercet.cluster.belongings import DEED, Deed, clear_abandoned, sign
from tercet.cluster.process_tree import Process, pid_space, process
from tercet.errors import TercetError

SLEEP = "import time; print(1, flush=True); time.sleep(60)"
HERE = process(os.getpid())
DEAD = Process(HERE.pid, HERE.started_ticks - 1)
"""A former life of our pid."""


@pytest.fixture
def sleeper() -> Iterator[Process]:
    """A process that goes on for a minute."""
    program = subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, text=True)
    program.stdout.readline()
    yield process(program.pid)
    program.kill()
    program.wait()
    program.stdout.close()


def belonging(root: Path, deed: Deed | None, name: str = "tercet-abc") -> Path:
    """A directory as a launcher leaves it, with a token, a session and this deed."""
    directory = root / name
    (directory / "ray" / "session").mkdir(parents=True)
    directory.chmod(0o700)
    (directory / "token").touch()
    (directory / "ray" / "latest").symlink_to("session")
    if deed is not None:
        (directory / DEED).write_bytes(msgspec.json.encode(deed))
    return directory


def test_what_a_dead_launcher_left_is_removed_and_its_family_ends(tmp_path, sleeper):
    directory = belonging(tmp_path, Deed(DEAD, (sleeper,), pid_space()))
    assert clear_abandoned(tmp_path) == [directory]
    assert not directory.exists()
    assert not sleeper.alive
    assert clear_abandoned(tmp_path) == []


def test_a_pid_of_the_family_that_was_given_away_again_is_spared(tmp_path, sleeper):
    former = Process(sleeper.pid, sleeper.started_ticks - 1)
    belonging(tmp_path, Deed(DEAD, (former,), pid_space()))
    assert len(clear_abandoned(tmp_path)) == 1
    assert sleeper.alive


def test_what_lives_is_not_touched(tmp_path, sleeper):
    directory = tmp_path / "tercet-mine"
    sign(directory, [sleeper])
    other = belonging(tmp_path, Deed(sleeper, (), pid_space()))
    assert clear_abandoned(tmp_path) == []
    assert directory.exists()
    assert other.exists()
    assert sleeper.alive


@pytest.mark.parametrize(
    ("deed", "name"),
    [
        (None, "tercet-abc"),
        (Deed(DEAD, (), "another boot"), "tercet-abc"),
        (Deed(DEAD, (), pid_space()), "somebody-elses"),
    ],
    ids=["no deed", "another boot", "another name"],
)
def test_what_proves_nothing_is_not_touched(tmp_path, deed, name):
    directory = belonging(tmp_path, deed, name)
    assert clear_abandoned(tmp_path) == []
    assert (directory / "token").exists()


def test_a_deed_that_cannot_be_read_proves_nothing(tmp_path):
    directory = belonging(tmp_path, None)
    (directory / DEED).write_text('{"owner": [')
    assert clear_abandoned(tmp_path) == []
    assert directory.exists()


def test_a_deed_that_others_could_have_written_proves_nothing(tmp_path):
    directory = belonging(tmp_path, Deed(DEAD, (), pid_space()))
    directory.chmod(0o755)
    (tmp_path / "tercet-link").symlink_to(belonging(tmp_path, None, "elsewhere"))
    (tmp_path / "elsewhere" / DEED).write_bytes((directory / DEED).read_bytes())
    assert clear_abandoned(tmp_path) == []
    assert directory.exists()
    assert (tmp_path / "elsewhere" / "token").exists()


def test_a_directory_that_others_can_write_to_is_not_signed(tmp_path):
    (tmp_path / "tercet-open").mkdir()
    (tmp_path / "tercet-open").chmod(0o777)
    with pytest.raises(TercetError, match="remove it"):
        sign(tmp_path / "tercet-open")


def test_a_removal_that_was_overtaken_is_taken_up_again(tmp_path, monkeypatch):
    directory = belonging(tmp_path, Deed(DEAD, (), pid_space()))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
        clear_abandoned(tmp_path)
    assert (directory / "ray").exists()
    assert clear_abandoned(tmp_path) == [directory]
    assert not directory.exists()


def test_signing_again_adds_the_family(tmp_path, sleeper):
    sign(tmp_path / "tercet-mine")
    sign(tmp_path / "tercet-mine", [sleeper])
    deed = msgspec.json.decode((tmp_path / "tercet-mine" / DEED).read_bytes(), type=Deed)
    assert deed == Deed(HERE, (sleeper,), pid_space())
