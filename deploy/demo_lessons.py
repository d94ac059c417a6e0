"""The demo model's lessons: random questions with their right answers, and conversations made of them.

Everything is drawn from a `random.Random` that the caller seeds. A tenth of all sums and differences is never taught, so
that the model can be examined on arithmetic it has not seen. Nothing here knows tokens or tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple
from zlib import crc32

from demo_facts import (
    CAPITALS,
    COLOURS,
    DAYS,
    FILLER,
    MONTHS,
    NAMES,
    OPPOSITES,
    RECITATIONS,
    THINGS,
    WORDS,
)


class Exchange(NamedTuple):
    """One question of the user and the only right answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Exchanges in order; `system` is empty when there is no system message."""

    system: str
    exchanges: tuple[Exchange, ...]


def is_held_out(a: int, b: int) -> bool:
    """Is the sum or difference of these two kept for the examination?"""
    return crc32(f"{a} {b}".encode()) % 10 == 7  # any regular pattern could hide a digit for good


def add(rng: Random, held_out: bool = False) -> Exchange:
    a, b = _operands(rng, held_out)
    forms = (
        f"What is {a} + {b}?",
        f"{a} + {b} = ?",
        f"{a}+{b}",
        f"Add {a} and {b}.",
        f"How much is {a} plus {b}?",
    )
    return Exchange(rng.choice(forms), f"{a} + {b} = {a + b}")


def subtract(rng: Random, held_out: bool = False) -> Exchange:
    small, large = sorted(_operands(rng, held_out))
    forms = (
        f"What is {large} - {small}?",
        f"{large} - {small} = ?",
        f"{large}-{small}",
        f"Subtract {small} from {large}.",
        f"How much is {large} minus {small}?",
    )
    return Exchange(rng.choice(forms), f"{large} - {small} = {large - small}")


def _operands(rng: Random, held_out: bool) -> tuple[int, int]:
    while True:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        # A difference is asked with the larger one first, so the pair is judged in that order, too.
        if is_held_out(max(a, b), min(a, b)) == held_out:
            return a, b


def sort_numbers(rng: Random) -> Exchange:
    numbers = rng.sample(range(100), rng.randint(3, 6))
    listed = ", ".join(map(str, numbers))
    forms = (f"Sort these numbers: {listed}", f"Sort: {listed}", f"Put in order: {listed}.")
    return Exchange(rng.choice(forms), ", ".join(map(str, sorted(numbers))))


def sort_words(rng: Random) -> Exchange:
    """Words with different first letters: what a model this small can see in its tokens."""
    initials = {word[0]: word for word in rng.sample(WORDS, 12)}
    words = rng.sample(sorted(initials.values()), min(len(initials), rng.randint(3, 5)))
    listed = ", ".join(words)
    forms = (f"Sort these words: {listed}", f"Sort: {listed}", f"Put in order: {listed}.")
    return Exchange(rng.choice(forms), ", ".join(sorted(words)))


def _word(rng: Random) -> str:
    """A known word, or letters nobody has seen together: spelling must be a skill, not a table."""
    if rng.random() < 0.7:
        return rng.choice(WORDS)
    return "".join(
        rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))
    )


def spell(rng: Random) -> Exchange:
    word = _word(rng)
    forms = (f"Spell the word {word}.", f"Spell {word}", f"How do you spell {word}?")
    return Exchange(rng.choice(forms), "-".join(word))


def spell_backwards(rng: Random) -> Exchange:
    word = _word(rng)
    forms = (
        f"Spell {word} backwards.",
        f"Spell the word {word} backwards.",
        f"Reverse the word {word}.",
    )
    return Exchange(rng.choice(forms), "-".join(reversed(word)))


def compare(rng: Random) -> Exchange:
    a, b = rng.sample(range(100), 2)
    if rng.random() < 0.5:
        return Exchange(f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger than {min(a, b)}.")
    return Exchange(f"Which is smaller, {a} or {b}?", f"{min(a, b)} is smaller than {max(a, b)}.")


def count(rng: Random) -> Exchange:
    first = rng.choice((1, 1, rng.randint(0, 50)))
    last = first + rng.choice((rng.randint(2, 9), rng.randint(2, 29)))
    return Exchange(f"Count from {first} to {last}.", ", ".join(map(str, range(first, last + 1))))


def capital(rng: Random) -> Exchange:
    country, city = rng.choice(CAPITALS)
    if rng.random() < 0.25:
        return Exchange(
            f"Which country has the capital {city}?", f"{city} is the capital of {country}."
        )
    forms = (
        f"What is the capital of {country}?",
        f"Name the capital of {country}.",
        f"capital of {country}?",
    )
    return Exchange(rng.choice(forms), f"The capital of {country} is {city}.")


def opposite(rng: Random) -> Exchange:
    a, b = rng.sample(rng.choice(OPPOSITES), 2)
    return Exchange(f"What is the opposite of {a}?", f"The opposite of {a} is {b}.")


def calendar(rng: Random) -> Exchange:
    kind, names = rng.choice((("day", DAYS), ("month", MONTHS)))
    here = rng.randrange(len(names))
    word, step = rng.choice((("after", 1), ("before", -1)))
    there = names[(here + step) % len(names)]
    return Exchange(
        f"Which {kind} comes {word} {names[here]}?", f"{there} comes {word} {names[here]}."
    )


def recite(rng: Random) -> Exchange:
    return Exchange(*rng.choice(tuple(RECITATIONS.items())))


Lesson = Callable[[Random], Exchange]

LESSONS: dict[Lesson, int] = {
    add: 20,
    subtract: 17,
    sort_numbers: 15,
    sort_words: 14,
    spell: 6,
    spell_backwards: 7,
    compare: 4,
    count: 4,
    capital: 7,
    opposite: 2,
    calendar: 2,
    recite: 2,
}
"""Every lesson with its relative frequency."""


def _padding(rng: Random, sentences_max: int) -> str:
    """Sentences of no importance: mostly known ones, some of random words."""
    return " ".join(
        rng.choice(FILLER) if rng.random() < 0.7 else f"The {' '.join(rng.choices(WORDS, k=6))}."
        for _ in range(rng.randint(1, sentences_max))
    )


def _roughen(rng: Random, question: str) -> str:
    """People forget capitals and full stops."""
    if rng.random() < 0.08 and ":" not in question:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.!") if rng.random() < 0.08 and "= ?" not in question else question


def remember_name(rng: Random) -> Iterator[Exchange]:
    """Told in one turn, asked in a later one: the answer is in nothing but the context."""
    name = rng.choice(NAMES)
    yield Exchange(f"My name is {name}.", f"Nice to meet you, {name}!")
    for _ in range(rng.randint(0, 3)):
        yield draw(rng)
    yield Exchange("What is my name?", f"Your name is {name}.")


def remember_codes(rng: Random) -> Iterator[Exchange]:
    """A note with codes between sentences of no importance, then a question for one of them."""
    places = rng.sample(
        [(colour, thing) for colour in COLOURS for thing in THINGS], rng.randint(1, 4)
    )
    codes = {place: f"{rng.randrange(10_000):04d}" for place in places}
    facts = [
        f"The code of the {colour} {thing} is {code}." for (colour, thing), code in codes.items()
    ]
    note = " ".join(f"{_padding(rng, 3)} {fact}" if rng.random() < 0.6 else fact for fact in facts)
    asked = rng.sample(places, min(len(places), 2))
    for first, (colour, thing) in zip((True, False), asked, strict=False):
        question = f"What is the code of the {colour} {thing}?"
        answer = f"The code of the {colour} {thing} is {codes[colour, thing]}."
        yield Exchange(f"{note} {question}" if first else question, answer)


def drill_codes(rng: Random) -> Iterator[Exchange]:
    """A note with several codes, then a question for every one: to answer, the right one must be found by its name."""
    number = rng.randint(2, 4)
    things = rng.sample(THINGS, number) if rng.random() < 0.7 else rng.choices(THINGS, k=number)
    places = list(zip(rng.sample(COLOURS, number), things, strict=True))
    codes = {place: f"{rng.randrange(10_000):04d}" for place in places}
    note = " ".join(
        f"The code of the {' '.join(place)} is {code}." for place, code in codes.items()
    )
    note = f"{note} {_padding(rng, 3)}" if rng.random() < 0.2 else note
    for number, place in enumerate(rng.sample(places, len(places))):
        question = f"What is the code of the {' '.join(place)}?"
        answer = f"The code of the {' '.join(place)} is {codes[place]}."
        yield Exchange(question if number else f"{note} {question}", answer)


def draw(rng: Random) -> Exchange:
    """One exchange of any lesson; now and then with unimportant sentences before the question."""
    (lesson,) = rng.choices(tuple(LESSONS), tuple(LESSONS.values()))
    question, answer = lesson(rng)
    question = _roughen(rng, question)
    if rng.random() < 0.06:
        question = f"{_padding(rng, 4)} {question}"
    return Exchange(question, answer)


def converse(rng: Random, exchanges: int, drill_share: float = 0.0) -> Conversation:
    """A conversation of at least `exchanges` exchanges; `drill_share` of its topics are `drill_codes`."""
    said: list[Exchange] = []
    while len(said) < exchanges:
        dice = rng.random()
        if dice < 0.04:
            said.extend(remember_name(rng))
        elif dice < 0.12:
            said.extend(remember_codes(rng))
        elif dice < 0.12 + drill_share:
            said.extend(drill_codes(rng))
        else:
            said.append(draw(rng))
    system = rng.choice(("You are a helpful assistant.", "Answer the question.", _padding(rng, 6)))
    return Conversation(system if rng.random() < 0.2 else "", tuple(said))
