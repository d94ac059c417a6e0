"""How every engine is asked: a line of JSON in, a line out. Runs in the peers' own environments, so it needs nothing but Python.

In: `{"prompts": [[ids]], "output_tokens": n}`; out: `{"seconds": s, "outputs": [[ids]]}`. The first line out is `{"version": v}`,
printed when the engine is loaded. What libraries print goes to stderr.
"""

import json
import os
import sys
import time
from collections.abc import Callable

Outputs = list[list[int]]
Run = Callable[[list[list[int]], int], Outputs]
"""Prompts, all at once, and how many tokens each is to get, greedily, whatever they are."""


def serve(load: Callable[[str, str, int], tuple[Run, str]]) -> None:
    """`load` is given the checkpoint's folder, the dtype and the number of threads, and returns the engine and its version."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder, dtype, threads = sys.argv[1:]
    run, version = load(folder, dtype, int(threads))
    print(json.dumps({"version": version}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        began_s = time.perf_counter()
        outputs = run(order["prompts"], order["output_tokens"])
        seconds = time.perf_counter() - began_s
        print(json.dumps({"seconds": seconds, "outputs": outputs}), file=answers, flush=True)
    answers.close()
    os._exit(0)  # some engines' threads outlive everything else
