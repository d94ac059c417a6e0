import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["tercet.app", "tercet.cli", "tercet.cluster.controller", "tercet.workers.actor"]
)
def test_torch_stays_out_of_processes_that_do_not_compute(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
