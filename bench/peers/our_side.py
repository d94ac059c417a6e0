"""Our front door in front of real workers that only take their time: aggregated serving, without Ray."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

import our_door
import our_worker
from children import script
from replay import MODEL
from stage import Facts, Running, Stage, Variant
from tercet.config import ClusterConfig, LinkConfig, SloConfig
from tercet.ids import WorkerId
from tercet.wire import Endpoint
from turns import vocabulary

OURS = "tercet"


@asynccontextmanager
async def our_side(variant: Variant, stage: Stage) -> AsyncIterator[Running]:
    """The front door, ready to serve while the context lasts. Raises ConfigError or msgspec.ValidationError for a wrong setting."""
    config = cluster_config(variant, stage)
    async with AsyncExitStack() as stack:
        run_dir = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = []
        for number in range(stage.workers):
            settings = our_worker.Settings(
                config,
                stage.timing,
                WorkerId(f"decode-{number}"),
                sum(1 for _ in vocabulary(stage.blocks)),
                run_dir,
            )
            text = msgspec.json.encode(settings).decode()
            worker = await stack.enter_async_context(script("our_worker.py", text))
            endpoints.append(msgspec.json.decode(worker.greeting, type=Endpoint))
        behind = our_door.Settings(config, tuple(endpoints), stage.blocks, stage.records_max)
        text = msgspec.json.encode(behind).decode()
        door = await stack.enter_async_context(script("our_door.py", text))

        async def facts() -> Facts:
            counts = msgspec.json.decode(await door.ask(), type=our_door.Counts)
            per_worker = [counts.workers.get(endpoint.worker, 0) for endpoint in endpoints]
            return Facts(per_worker, msgspec.to_builtins(counts))

        yield Running(f"http://127.0.0.1:{door.greeting}", facts)


def cluster_config(variant: Variant, stage: Stage) -> ClusterConfig:
    """Aggregated serving by equal workers; what is in seconds is as slow as they are."""
    timing, stretch = stage.timing, stage.stretch
    sections: dict[str, dict[str, object]] = {
        "model": {"path": "unused", "name": MODEL},
        "pools": {"prefill": {"replicas": 0}, "decode": {"replicas": stage.workers}},
        "engine": {"kv_blocks": timing.kv_blocks, "block_tokens": timing.block_tokens},
        "router": {"policy": variant.policy, "policy_options": dict(variant.options)},
        "transfer": {"backend": "fake"},
        "slo": {"ttft_ms": SloConfig().ttft_ms * stretch},
        "link": {"report_period_s": LinkConfig().report_period_s * stretch},
    }
    for path, value in stage.settings.items():
        section, _, key = path.partition(".")
        sections.setdefault(section, {})[key] = value
    return msgspec.convert(sections, ClusterConfig, strict=False)
