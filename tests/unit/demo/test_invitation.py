import json
import os
import shlex
from io import StringIO
from textwrap import dedent

import pytest
from rich.console import Console

from tercet.cluster.process_tree import process
from tercet.cluster.run_record import RunBook, RunRecord
from tercet.demo.invitation import invite, noted


@pytest.fixture
def pieces():
    """What a terminal of 40 columns is given, cut at its empty lines."""
    screen = StringIO()
    invite(Console(file=screen, width=40), "demo", "127.0.0.1:8000", "127.0.0.1:9000")
    return screen.getvalue().split("\n\n")


def test_the_curl_line_can_be_copied_from_a_narrow_terminal(pieces):
    (line,) = [piece for piece in pieces if "chat/completions" in piece]
    words = shlex.split(line)
    assert words[:3] == ["curl", "-N", "http://127.0.0.1:8000/v1/chat/completions"]
    assert words[words.index("-H") + 1] == "content-type: application/json"
    assert json.loads(words[words.index("-d") + 1])["model"] == "demo"


def test_the_python_lines_can_be_copied_from_a_narrow_terminal(pieces):
    (lines,) = [piece for piece in pieces if "import" in piece]
    compile(dedent(lines), "copied", "exec")


def test_a_demo_can_be_found_while_it_serves(tmp_path):
    book = RunBook(tmp_path)
    with noted(record("127.0.0.2:1"), book):
        assert book.read("demo") == record("127.0.0.2:1")
    assert book.all() == []


def test_a_demo_hides_no_cluster_of_its_name(tmp_path):
    book = RunBook(tmp_path)
    book.write(record("127.0.0.2:1"))
    with noted(record("127.0.0.2:2"), book):
        assert book.read("demo") == record("127.0.0.2:1")
    assert book.read("demo") == record("127.0.0.2:1")


def record(address: str) -> RunRecord:
    return RunRecord(name="demo", address=address, http="", server=process(os.getpid()))
