import os

import pytest

from tercet.cluster.process_tree import Process, process
from tercet.cluster.run_record import RunBook, RunRecord
from tercet.errors import TercetError


def record(name: str, server: Process | None = None) -> RunRecord:
    return RunRecord(name=name, address="127.0.0.2:6379", http="127.0.0.1:8000", server=server)


@pytest.fixture
def book(tmp_path):
    return RunBook(tmp_path / "book")


def test_what_was_written_is_read_until_it_is_removed(book):
    mine = record("demo", process(os.getpid()))
    book.write(mine)
    assert book.read("demo") == mine
    book.remove("demo")
    book.remove("demo")
    assert book.read("demo") is None


def test_a_record_of_a_dead_server_does_not_count(book):
    here = process(os.getpid())
    book.write(record("dead", Process(here.pid, here.started_ticks - 1)))
    book.write(record("nobodys"))
    book.write(record("alive", here))
    assert [each.name for each in book.all()] == ["alive", "nobodys"]
    assert book.read("dead") is None


def test_the_book_is_closed_to_others(book):
    book.write(record("demo"))
    assert book.root.stat().st_mode & 0o077 == 0
    book.root.chmod(0o777)
    book.all()
    assert book.root.stat().st_mode & 0o077 == 0


def test_a_book_that_is_not_a_directory_of_ours_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(TercetError, match="--run-dir"):
        RunBook(tmp_path / "link").all()
