"""transformers' continuous batching."""

import torch
import transformers
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from orders import Outputs, Run, serve


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation="sdpa"
    ).eval()
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(
            max_new_tokens=64, do_sample=False, pad_token_id=0, eos_token_id=-1
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=32,
            num_blocks=256,
            max_batch_tokens=512,
            max_requests_per_batch=32,
            allow_block_sharing=False,
            use_async_batching=False,
            use_cuda_graph=False,
        ),
    )
    manager.start()

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        requests = [manager.add_request(p, max_new_tokens=output_tokens) for p in prompts]
        done: dict[str, list[int]] = {}
        while len(done) < len(requests):
            result = manager.get_result(timeout=10)
            if result is not None and result.is_finished():
                done[result.request_id] = list(result.generated_tokens)
        return [done[request] for request in requests]

    return run, transformers.__version__


serve(load)
