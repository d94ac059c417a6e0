"""How the GPU benchmarks measure and tell: medians of graph replays over rotated buffers, tables at the end, JSON beside them.

A dry run takes the CPU and Triton's interpreter, and says nothing about time.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
import triton

REPLAYS = 21
ROTATED_BYTES = 256 * 2**20
"""Buffers that are read one after the other are this large together: five times the L2 of an H200."""
Work = Callable[[], object]
Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds of one piece of work."""

    p10_us: float
    p50_us: float
    p90_us: float

    @classmethod
    def of(cls, samples_us: Sequence[float]) -> "Timing":
        ordered = sorted(samples_us)
        last = len(ordered) - 1
        p10, p50, p90 = (ordered[round(last * share)] for share in (0.1, 0.5, 0.9))
        return cls(p10, p50, p90)

    @property
    def spread(self) -> float:
        """Relative; a smaller difference between two things is a tie."""
        return (self.p90_us - self.p10_us) / self.p50_us


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it runs."""

    device: torch.device
    name: str
    processors: int

    @classmethod
    def here(cls, dry_run: bool) -> "Machine":
        if dry_run:
            return cls(torch.device("cpu"), "a dry run", 2)
        device = torch.device("cuda")
        properties = torch.cuda.get_device_properties(device)
        return cls(device, properties.name, properties.multi_processor_count)

    @property
    def dry(self) -> bool:
        return self.device.type == "cpu"

    def copies(self, nbytes: int) -> int:
        """So many buffers of this size are to be rotated."""
        return 1 if self.dry else max(2, min(64, -(-ROTATED_BYTES // max(nbytes, 1))))

    def timing(self, variants: Sequence[Work]) -> Timing:
        """Of one variant: all do the same on memory of their own."""
        for work in variants:
            work()
        if self.dry:
            started_s = time.perf_counter()
            variants[0]()
            return Timing.of([(time.perf_counter() - started_s) * 1e6])
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for work in variants:
                work()
        return Timing.of([us / len(variants) for us in self.samples_us(graph.replay, REPLAYS)])

    def samples_us(self, work: Work, count: int) -> list[float]:
        """By events on the stream, after three runs that do not count."""
        for _ in range(3):
            work()
        events = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(count)
        ]
        for begin, end in events:
            begin.record()
            work()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) * 1e3 for begin, end in events]

    def facts(self) -> dict[str, str]:
        """What figures depend on."""
        facts = {"device": self.name, "torch": torch.__version__, "triton": triton.__version__}
        facts["commit"] = _output("git", "rev-parse", "--short", "HEAD")
        if not self.dry:
            query = "clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu"
            seen = _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
            facts[query] = seen
        return facts


@dataclass
class Table:
    """One table of the report."""

    title: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(list(cells))

    def text(self) -> str:
        shown = [[_shown(cell) for cell in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *shown, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            for row in (self.columns, *shown)
        ]
        return "\n".join([f"\n{self.title}", *lines])


class Report:
    """Sections are run until the time is up, and one that fails does not take the others along."""

    def __init__(self, machine: Machine, seconds: float, path: Path) -> None:
        self.machine = machine
        self._began_s = time.monotonic()
        self._seconds = seconds
        self._tables: list[Table] = []
        self.troubles: list[str] = []
        self.notes: list[str] = []
        """What was not measured, and is no fault."""
        self._facts, self._path = machine.facts(), path

    def table(self, title: str, *columns: str) -> Table:
        table = Table(title, columns)
        self._tables.append(table)
        return table

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() - self._began_s > self._seconds

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What goes wrong in it is told at the end."""
        started_s = time.monotonic()
        try:
            yield
        except Exception:
            self.troubles.append(f"{name} failed: {traceback.format_exc()}")
        if self.machine.device.type == "cuda":
            torch.cuda.empty_cache()
        self._write()
        print(
            f"[{time.monotonic() - self._began_s:5.0f} s] {name}: {time.monotonic() - started_s:.1f} s",
            flush=True,
        )

    def run(self, sections: dict[str, Callable[["Report"], None]]) -> None:
        for name, run in sections.items():
            if self.time_is_up:
                self.notes.append(f"{name} was left out: the time was up")
                continue
            with self.section(name):
                run(self)

    def finish(self) -> int:
        """Print everything and write it; returns the exit status."""
        self._facts |= {f"{k} at the end": v for k, v in self.machine.facts().items() if "," in k}
        self._write()
        for told in (*self.notes, *self.troubles):
            print(f"\n{told}")
        print("\n" + "\n".join(f"{name}: {value}" for name, value in self._facts.items()))
        for table in self._tables:
            print(table.text())
        return 1 if self.troubles else 0

    def _write(self) -> None:
        """After every section: whoever is stopped amid the next one has the figures of those before."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        tables = [
            {"title": t.title, "columns": list(t.columns), "rows": t.rows} for t in self._tables
        ]
        document = {"facts": self._facts, "tables": tables, "troubles": self.troubles}
        document["notes"] = self.notes
        self._path.write_text(json.dumps(document, indent=1) + "\n")


def parser(doc: str | None, name: str, seconds: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU, interpreted")
    made.add_argument("--seconds", type=int, default=seconds, help="no section begins after that")
    out = Path(os.environ.get("OUT", Path(__file__).parent / "results"))
    made.add_argument("--json", type=Path, default=out / f"{name}.json")
    return made


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)


def _shown(cell: Cell) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.3g}" if abs(cell) < 10 else f"{cell:.1f}" if abs(cell) < 1000 else f"{cell:.0f}"


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        return f"unknown: {exc}"
    return done.stdout.strip() or done.stderr.strip()[:80]
