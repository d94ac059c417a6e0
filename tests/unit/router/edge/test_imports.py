import subprocess
import sys


def test_neither_door_nor_client_loads_torch_ray_or_transformers() -> None:
    """A front door must start in a second and fit beside others; a client must run anywhere."""
    code = (
        "import sys, tercet.client, tercet.router.http, tercet.router.rpc, tercet.router.service;"
        "print(*{'torch', 'ray', 'transformers'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []
