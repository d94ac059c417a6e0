"""One request at the desk: what it is, what is known of its prompt's prefixes, and its place in the ledger."""

import msgspec

from tercet.request import RequestSpec
from tercet.router.ledger import Slot
from tercet.router.policy import Ask, Rank
from tercet.router.prefix_index import Prefix


class Errand(msgspec.Struct, frozen=True):
    """Lives as long as the request."""

    spec: RequestSpec
    prefix: Prefix
    slot: Slot
    session: str = ""

    def ask(self, output_tokens: int, now_s: float, rank: Rank | None = None) -> Ask:
        """What policies are told, with so many tokens generated already."""
        spec, prefix = self.spec, self.prefix
        return Ask(
            request=spec.id,
            tokens=len(spec.prompt) + output_tokens,
            priority=spec.priority,
            session=self.session,
            names=prefix.names,
            block_tokens=prefix.block_tokens,
            at_s=now_s,
            rank=rank or Rank(spec.priority),
        )
