"""The reference every path is held against: one process, transformers' own model, no paging, no batching, no cache of ours."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no bug
hypothesis.settings.load_profile("patient")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores are shared by several processes
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if not Path("/dev/nvidiactl").exists():  # read when a kernel is defined
    os.environ.setdefault("TRITON_INTERPRET", "1")

DEMO_MODEL = Path(__file__).parent.parent / "deploy" / "demo-model"


@dataclass(frozen=True)
class Reference:
    """Continues a prompt token by token with transformers; draws with our sampler from transformers' logits."""

    continue_prompt: Callable[..., list[int]]

    def __call__(
        self, prompt: list[int], max_tokens: int, *, temperature: float, seed: int
    ) -> list[int]:
        return self.continue_prompt(prompt, max_tokens, temperature, seed)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    return DEMO_MODEL


@pytest.fixture(scope="session")
def reference(demo_model: Path) -> Reference:
    """The demo model. End-of-sequence is ignored: whoever compares asks for `ignore_eos`."""
    import torch  # noqa: PLC0415 -- most tests do without
    from transformers import AutoModelForCausalLM, LogitsProcessorList  # noqa: PLC0415

    from tercet.ids import FIRST_EPOCH, RequestId  # noqa: PLC0415
    from tercet.request import RequestSpec, Sampling  # noqa: PLC0415
    from tercet.workers.sampler import Sampler  # noqa: PLC0415
    from tercet.workers.sequence import Sequence  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(demo_model, dtype=torch.float32).eval()
    sampler = Sampler(frozenset())

    def generate(prompt: list[int], max_tokens: int, draw: LogitsProcessorList) -> list[int]:
        ids = torch.tensor([prompt])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            logits_processor=draw,
        )
        return output[0, len(prompt) :].tolist()

    def seeded(prompt: list[int], max_tokens: int, temperature: float, seed: int) -> list[int]:
        """Transformers computes every logit; only the draw is ours, so the chosen token is made the only possible one."""
        sampling = Sampling(temperature=temperature, seed=seed, max_tokens=max_tokens)
        spec = RequestSpec(RequestId("reference"), prompt, sampling)
        sequence = Sequence(spec, FIRST_EPOCH, "reference", 0, list(prompt))

        def draw(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            token = sampler.draw(scores.float(), [sequence])[0].token
            assert token is not None
            sequence.tokens.append(token)
            forced = torch.full_like(scores, -torch.inf)
            forced[0, token] = 0
            return forced

        return generate(prompt, max_tokens, LogitsProcessorList([draw]))

    def continue_prompt(
        prompt: list[int], max_tokens: int, temperature: float, seed: int
    ) -> list[int]:
        with torch.inference_mode():
            if temperature == 0:
                return generate(prompt, max_tokens, LogitsProcessorList())
            return seeded(prompt, max_tokens, temperature, seed)

    return Reference(continue_prompt)
