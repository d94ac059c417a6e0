from tercet.ids import RequestId
from tercet.request import Sampling
from tercet.router.call import Call, TextPrompt
from tercet.router.call_book import CallBook


def call(id_: str, name: str = "", choices: int = 1) -> Call:
    return Call(RequestId(id_), "toy", (TextPrompt("x"),), Sampling(), choices=choices, name=name)


def test_a_call_is_found_by_its_id_and_by_its_clients_name() -> None:
    book = CallBook()
    book.add(call("a", name="mine", choices=2))
    assert book.find("a") == book.find("mine") == ("a-0", "a-1")


def test_of_calls_with_one_name_the_last_counts() -> None:
    book = CallBook()
    book.add(call("a", name="mine"))
    book.add(call("b", name="mine"))
    assert book.find("mine") == ("b",)
    assert book.find("a") == ("a",)


def test_what_is_not_a_calls_name_may_be_a_requests() -> None:
    assert CallBook().find("a-1") == ("a-1",)


def test_the_oldest_names_are_forgotten() -> None:
    book = CallBook(names_max=3)
    for number in range(5):
        book.add(call(f"c{number}", name=f"n{number}", choices=2))
    assert len(book) == 3
    assert book.find("c4") == book.find("n4") == ("c4-0", "c4-1")
    assert book.find("c0") == ("c0",)
