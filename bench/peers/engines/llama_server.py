"""llama.cpp's HTTP server with 16 slots; LLAMA_SERVER names it, and the checkpoint is converted once by LLAMA_CONVERT."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orders import Outputs, Run, serve

TYPES = {"float32": "f32", "bfloat16": "bf16"}
SLOTS = 16


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    model = Path(folder) / f"{TYPES[dtype]}.gguf"
    if not model.exists():
        convert = [sys.executable, os.environ["LLAMA_CONVERT"], folder, "--outfile", model]
        subprocess.run([*convert, "--outtype", TYPES[dtype]], check=True, stdout=sys.stderr)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = os.environ["LLAMA_SERVER"]
    command = [server, "-m", model, "--port", str(port), "-np", str(SLOTS), "-c", str(SLOTS * 512)]
    subprocess.Popen([*command, "-t", str(threads), "-tb", str(threads)], stdout=sys.stderr)
    url = f"http://127.0.0.1:{port}"
    _wait(f"{url}/health")

    def ask(prompt: list[int], output_tokens: int) -> list[int]:
        body = {"prompt": prompt, "n_predict": output_tokens, "temperature": 0, "top_k": 1}
        body |= {"ignore_eos": True, "cache_prompt": False, "return_tokens": True}
        request = urllib.request.Request(
            f"{url}/completion",
            json.dumps(body | {"samplers": ["top_k"]}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:
            return list(json.load(answer)["tokens"])

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        with ThreadPoolExecutor(SLOTS) as clients:
            return list(clients.map(ask, prompts, [output_tokens] * len(prompts)))

    return run, subprocess.run(
        [server, "--version"], capture_output=True, text=True, check=True
    ).stderr.splitlines()[0]


def _wait(url: str) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)


serve(load)
