"""vLLM on a CPU, in this process, without compilation (which gains nothing there and takes half a minute)."""

import importlib.metadata
import os

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from orders import Outputs, Run, serve


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = f"0-{threads - 1}"
    from vllm import LLM, SamplingParams  # noqa: PLC0415 -- reads the environment

    engine = LLM(
        folder,
        dtype=dtype,
        max_model_len=1024,
        max_num_seqs=16,
        enforce_eager=True,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        settings = SamplingParams(
            temperature=0, max_tokens=output_tokens, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        answers = engine.generate(inputs, settings, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    return run, importlib.metadata.version("vllm-cpu")


if __name__ == "__main__":
    serve(load)
