"""The router by figures: what a decision costs, and what a cluster carries by its decisions.

python bench/router.py cost                              microseconds a decision, by policy and number of workers
python bench/router.py capacity --traces DIR             requests a second, by policy, on public traces
python bench/router.py capacity --traces DIR --cells 0 8 some cells only; --list shows them
"""

import argparse
from pathlib import Path

from rich.console import Console

import capacity_cells
import capacity_plot
import router_capacity
import router_cost


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    router_cost.arguments(ways.add_parser("cost"))
    capacity = ways.add_parser("capacity")
    capacity.add_argument("--traces", type=Path, help="folder with mooncake/, ragpulse/, …")
    capacity.add_argument("--cells", type=int, nargs="+", help="numbers; all by default")
    capacity.add_argument("--policies", nargs="+", default=[], help="names; all by default")
    capacity.add_argument("--processes", type=int, default=2)
    capacity.add_argument(
        "--json",
        type=Path,
        help="also write the rows here, with each one; what is there already is kept",
    )
    capacity.add_argument("--show", type=Path, help="only show what such a file has")
    capacity.add_argument("--plot", type=Path, help="draw what --show shows")
    capacity.add_argument("--list", action="store_true", help="only list the cells")
    arguments = parser.parse_args()
    if arguments.way == "cost":
        router_cost.run(arguments)
    else:
        measure_capacity(arguments)


def measure_capacity(arguments: argparse.Namespace) -> None:
    cells = capacity_cells.CELLS
    if arguments.list:
        for number, cell in enumerate(cells):
            Console().print(f"{number:3} {cell}")
    elif arguments.show:
        rows = router_capacity.load_rows(arguments.show)
        router_capacity.show(rows)
        if arguments.plot:
            capacity_plot.plot(rows, arguments.plot)
    elif arguments.traces is None:
        raise SystemExit("--traces is missing: a folder with the public traces, see docs/traces.md")
    else:
        chosen = [cells[number] for number in arguments.cells or range(len(cells))]
        rows = router_capacity.run(
            arguments.traces, chosen, arguments.policies, arguments.processes, arguments.json
        )
        router_capacity.show(rows)


if __name__ == "__main__":
    main()
