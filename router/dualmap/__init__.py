"""DualMap: each prompt prefix belongs to two workers, found by two hashes, and goes to the one that suits better now.

After "DualMap" (ICLR 2026, arXiv 2602.06502). The paper's rules for key and pair are kept; two additions of ours, on by
default, decide by predicted time when affinity would break the promise. `docs/routing.md` explains it all.
"""

from tercet.router.dualmap.chooser import DualMap
from tercet.router.dualmap.judge import PairReason, SloJudge

__all__ = ["DualMap", "PairReason", "SloJudge"]
