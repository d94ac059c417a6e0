"""What must hold between any two events, and what must be left when all is over: nothing."""

from collections.abc import Sequence

from faults.climate import Theme
from faults.door import Door
from faults.worker import Worker
from tercet.router.flight import Flight
from tercet.workers import events
from tercet.workers.residents import RUNS
from tercet.workers.transfer.codec_choice import Codec

NEAR_END_S = 0.1
TURNS_A_LOOK = 16
"""So many turns of engines pass between two looks at everything; what changes owners is looked at each time."""


class Invariants:
    """Blames the world for the first thing that does not hold."""

    def __init__(self, world: object) -> None:
        self._world = world
        self._turns = self.changes = 0
        """Of all engines; and whenever commands were handled, steps computed, or reads posted."""
        self._seen = (-1, -1)
        """Changes and turns of the front doors when owners and blocks were looked at last; nothing else moves them."""

    # ---- between events ----------------------------------------------------------------------------------------------

    def after_event(self) -> None:
        world = self._world
        if world.chaos.climate.theme is Theme.SLOW:
            for worker in world.agents.values():
                self._held_for_somebody(worker)
        turns = 0
        for door in world.doors:
            turns += door.loop.turns
        seen = (self.changes, turns)
        if seen == self._seen:
            return
        self._seen = seen
        for client in world.clients:
            if client.pilot is not None and not client.left:
                self._one_owner(client.pilot._flight)
        for worker in world.agents.values():
            if worker.agent.in_flight:
                self._untouched(worker)

    def after_turn(self, worker: Worker) -> None:
        """An engine has done something."""
        self._turns += 1
        if self._turns % TURNS_A_LOOK == 0:
            worker.engine.steps.check_integrity()
            worker.board.departures.validate()
            worker.board.arrivals.validate()
            self._held_for_somebody(worker)
            self._run_for_somebody(worker)

    def _one_owner(self, flight: Flight) -> None:
        """At most one worker steps a request under an epoch that is a leg's.

        A hand-off's source is none: it stops by itself after the first token, which the destination repeats.
        """
        flight.validate()
        owners = []
        for worker in self._world.agents.values():
            sequence = worker.engine.sequences.get(flight.spec.id)
            if sequence is not None and sequence.phase in RUNS and not sequence.hand_off:
                leg = flight.custody.of(sequence.epoch)
                if leg is not None and leg.is_at(worker.endpoint):
                    owners.append(f"{worker} under {sequence.epoch}")
        if len(owners) > 1:
            self._world.blame(f"{flight.spec.id} has several owners: {owners}; {flight!r}")

    def _untouched(self, worker: Worker) -> None:
        """What a read may still write into belongs to the request that is pulled, or to nobody."""
        for read in worker.agent.in_flight:
            self.written(worker, read.blocks)
            if read.slots and not read.slots.isdisjoint(worker.unpacker.slots._free):
                self._world.blame(f"{worker}: a slot of {read.slots} is free while it is read into")

    def written(self, worker: Worker, blocks: Sequence[int]) -> None:
        pool, reserved = worker.engine.pool, None
        for block in blocks:
            if block in pool._quarantined:
                continue
            if reserved is None:
                reserved = {b for s in worker.engine.scheduler.reserved for b in s.blocks}
            if pool._references[block] != 1 or block not in reserved:
                self._world.blame(
                    f"{worker}: block {block} is free or in use while a read writes into it"
                )
                return

    def staged(self, source: Worker, slots: Sequence[int]) -> None:
        """These slots are packed into anew: nobody is to read them who has not been told that nothing is there for him."""
        for reader in self._world.agents.values():
            for arrival in reader.board.arrivals._arrivals.values():
                flight = arrival.flight
                wanted = flight is not None and arrival.leased and arrival.peer == source.name
                if not wanted or flight.codec is Codec.NONE:
                    continue
                key = (arrival.request, arrival.source_epoch)
                departure = source.board.departures._departures.get(key)
                told = departure is None or departure.reader_epoch != arrival.epoch
                if not (
                    told or not departure.reader or set(slots).isdisjoint(flight.remote_blocks)
                ):
                    self._world.blame(f"{source}: slots {slots} are used anew while {reader} reads")

    def _held_for_somebody(self, worker: Worker) -> None:
        """Whoever has a lease is linked; and in a world without faults its lease does not come near its end."""
        links, now_s = worker.board.readers._links, self._world.timeline.now_s()
        faultless = self._world.chaos.climate.theme is Theme.SLOW
        for departure in worker.board.departures._departures.values():
            if departure.reader and departure.reader not in links:
                self._world.blame(f"{worker} keeps a lease for nobody: {departure}")
            elif departure.reader and faultless and departure.expires_s - now_s < NEAR_END_S:
                self._world.blame(f"{worker} is not asked to renew a lease: {departure}")

    def _run_for_somebody(self, worker: Worker) -> None:
        """Nothing is stepped whose front door is gone, once the engine has heard of that."""
        links, engine = worker.board.sessions._links, worker.engine
        for sequence in engine.sequences.values():
            gone = sequence.phase in RUNS and sequence.owner not in links
            if gone and events.DropOwner(sequence.owner) not in engine.unheard:
                self._world.blame(f"{worker} runs {sequence.id} for {sequence.owner}, who is gone")

    # ---- in the end --------------------------------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """What is not at rest although nobody wants anything any more."""
        found = [line for worker in self._world.agents.values() for line in self._of(worker)]
        for door in self._world.doors:
            if door.alive:
                found += self._of_door(door)
        return found + self._world.controller.leftovers()

    def _of_door(self, door: Door) -> list[str]:
        reception = door.reception
        counts = {
            "pilots": len(reception.pilots),
            "ledger charges": reception.ledger.charges,
            "queued at the door": reception.door.queued,
            "in flight at the door": reception.door.in_flight,
        }
        return self._lines(door.name, counts)

    def _of(self, worker: Worker) -> list[str]:
        load, board = worker.engine.load, worker.board
        counts = {
            "waiting": load.waiting,
            "running": load.running,
            "held": load.holding,
            "reserved": load.pulling,
            "blocks used": load.blocks_used,
            "blocks in quarantine": load.quarantined_blocks,
            "departures": len(board.departures),
            "arrivals": len(board.arrivals),
            "owners of arrivals": len(board.arrivals._owners),
            "asked sources": len(board.arrivals._asked),
            "unsettled pulls": worker.transfer.unsettled,
            "leases": board.departures.leases,
            "slots of staging memory": worker.packing.kept if worker.packing else 0,
            "slots to unpack from": worker.unpacker.slots.kept if worker.unpacker else 0,
        }
        return self._lines(worker.name, counts)

    def _lines(self, name: str, counts: dict[str, int]) -> list[str]:
        return [f"{name}: {count} {what}" for what, count in counts.items() if count]

    def at_rest(self) -> None:
        """Checked once, at the end."""
        for worker in self._world.agents.values():
            worker.engine.steps.check_integrity()
        for door in self._world.doors:
            door.reception.ledger.validate()
            door.reception.door.validate()
