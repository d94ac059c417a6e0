"""transformers' own `generate` on one padded batch."""

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from orders import Outputs, Run, serve


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        settings = GenerationConfig(
            max_new_tokens=output_tokens, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        return out[:, ids.shape[1] :].tolist()

    return run, transformers.__version__


serve(load)
