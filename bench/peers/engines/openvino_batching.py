"""OpenVINO GenAI's ContinuousBatchingPipeline; `folder` holds the checkpoint, exported below it once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai

from orders import Outputs, Run, serve

PRECISION = {"float32": "f32", "bfloat16": "bf16"}


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    exported = Path(folder) / "openvino"
    if not exported.exists():
        tool = Path(sys.executable).with_name("optimum-cli")
        command = [tool, "export", "openvino", "--model", folder]
        command += ["--task", "text-generation-with-past", "--weight-format", "fp32", exported]
        subprocess.run(command, check=True, stdout=sys.stderr)
    scheduling = genai.SchedulerConfig()
    scheduling.cache_size = 1
    scheduling.max_num_batched_tokens = 512
    scheduling.enable_prefix_caching = False
    options = {
        "INFERENCE_PRECISION_HINT": PRECISION[dtype],
        "INFERENCE_NUM_THREADS": threads,
    }
    if dtype == "float32":
        options["KV_CACHE_PRECISION"] = "f32"
    pipeline = genai.ContinuousBatchingPipeline(str(exported), scheduling, "CPU", options)

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        settings = genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = output_tokens
        settings.ignore_eos, settings.do_sample = True, False
        inputs = [ov.Tensor(np.array([prompt], dtype=np.int64)) for prompt in prompts]
        answers = pipeline.generate(inputs, [settings] * len(inputs))
        return [list(answer.m_generation_ids[0]) for answer in answers]

    return run, genai.__version__


serve(load)
