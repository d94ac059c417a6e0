"""What the demo asks. The model beside `deploy/cluster.yaml` is small, but knows these from its lessons.

The answer to the code questions stands in nothing but the prompt: whoever decodes them has read the prompt's KV, which
another worker has computed.
"""

from dataclasses import dataclass
from enum import StrEnum

from tercet.client import ChatMessage

NOTE = "The code of the red box is 4821. The code of the blue door is 1907. The code of the green key is 3360."


class Door(StrEnum):
    """The entrance a question takes."""

    HTTP = "HTTP"
    GRPC = "gRPC"


@dataclass(frozen=True, slots=True)
class Question:
    """One chat request."""

    door: Door
    messages: tuple[ChatMessage, ...]

    @property
    def text(self) -> str:
        """Its last message, for the screen, and how much came before."""
        before = len(self.messages) // 2
        said = f" (after {before} exchange{'s' * (before > 1)})" if before else ""
        return self.messages[-1]["content"] + said


def ask(door: Door, *turns: str) -> Question:
    """A question after turns of user and assistant, beginning with the user."""
    roles = ("user", "assistant")
    return Question(
        door, tuple(ChatMessage(role=roles[i % 2], content=text) for i, text in enumerate(turns))
    )


QUESTIONS = (
    ask(Door.HTTP, "Who are you?"),
    ask(Door.HTTP, f"{NOTE} What is the code of the blue door?"),
    ask(
        Door.HTTP,
        f"{NOTE} What is the code of the blue door?",
        "The code of the blue door is 1907.",
        "What is the code of the red box?",
    ),
    ask(
        Door.GRPC,
        "My name is Anna.",
        "Nice to meet you, Anna!",
        "Sort these numbers: 71, 8, 34, 90, 15",
        "8, 15, 34, 71, 90",
        "Spell the word window backwards.",
        "w-o-d-n-i-w",
        "What is my name?",
    ),
    ask(Door.GRPC, "Sort these numbers: 58, 3, 77, 21, 46, 9"),
    ask(Door.GRPC, "What is Tercet?"),
)
