"""The cluster file as frozen structs. Every default stands here, with its unit in its name; each part is given its own section.

Reading YAML into these, with line numbers in every refusal, is `tercet.config_file`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tercet.role import Role

Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Milliseconds = Annotated[float, Meta(gt=0)]
Rate = Annotated[float, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, by keyword, and no key that we would silently ignore."""


class ModelConfig(Section, frozen=True, kw_only=True):
    """The checkpoint every worker loads."""

    path: str
    """A Hugging Face checkpoint directory; relative paths count from the cluster file."""
    name: str = ""
    """The name clients use; the directory's name when empty."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"
    context_tokens_max: NonNegative = 0
    """Longest prompt plus output; 0 takes the checkpoint's own limit."""


class EngineConfig(Section, frozen=True, kw_only=True):
    """One worker's engine."""

    block_tokens: Positive = 16
    """Tokens per KV block: 16 suits a CPU, 64 a GPU (one attention tile)."""
    kv_blocks: NonNegative = 1024
    """0, on a GPU, takes as many as `memory_share` leaves room for."""
    memory_share: Annotated[float, Meta(gt=0, le=1)] = 0.92
    """Share of a GPU's memory that weights, computing and KV may have together; for `kv_blocks: 0` only."""
    host_kv_blocks: NonNegative = 0
    """KV blocks in host memory for what the device has no room for: requests that gave way and conversations that may go on are
    copied back instead of computed again; 0 keeps none. For long prompts that come again after more than the device holds has
    come between, where the machine has memory to spare: a few times `kv_blocks`. It is pinned for a GPU, and all taken at the
    start."""
    step_tokens_max: Positive = 512
    """Token budget of one step: the chunk of a long prefill is what running decodes leave of it."""
    running_max: Positive = 64
    """Requests in one batch."""
    waiting_max: Positive = 256
    """Requests accepted but not started; one more is refused."""
    admission: Literal["aggressive", "worst_case", "past_future"] = "past_future"
    """When a request may join the batch. `aggressive`: as soon as its tokens and one more block for each running request fit;
    for outputs that are short beside the prompts. `worst_case`: when it and all that run fit at their `max_tokens`; for those
    who always set it close to what they use and must never see a request give way. `past_future`: when the peak that is
    predicted from the outputs of late fits; for everybody else."""
    prefill_stretch_max: Annotated[float, Meta(ge=0)] = 8.0
    """A request is passed by shorter ones until so many times its own prefill has been done for them; 0 serves everybody in the
    order of arrival. Lower it where long prompts must not wait for short ones."""
    start_within_s: Seconds = 1.0
    """A request that could not start within this long, by the prefill that is ahead of it, is refused: it waits at the front
    door, which can still order it, cancel it and give it to another worker."""
    retention_s_max: Annotated[float, Meta(ge=0)] = 0.0
    """Longest time for which a request may ask to keep its KV (`kv_ttl_s`); 0 keeps nothing on request. For agents whose
    conversations pause for tools while other traffic would evict them."""
    retention_share_max: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Share of the KV blocks that may be kept on request; the others are evicted first."""
    threads: Positive = 1
    """OpenMP threads of the process; more than one only where an engine owns its cores."""


class Resources(Section, frozen=True, kw_only=True):
    """What Ray reserves for one replica."""

    cpus: Annotated[float, Meta(ge=0)] = 1.0
    gpus: Annotated[float, Meta(ge=0)] = 0.0
    custom: dict[str, float] = {}
    """Ray custom resources, by name."""


class PoolConfig(Section, frozen=True, kw_only=True):
    """One pool of equal workers."""

    replicas: NonNegative = 1
    resources: Resources = Resources()
    labels: dict[str, str] = {}
    """Ray node labels a replica must be placed on; Ray's selector syntax, e.g. `accelerator-type: in(H100,H200)`."""
    tensor_parallel: Positive = 1
    """Processes that share out the heads and the widths of one replica's model, on one node, each with its part of the KV.
    `resources` are for all of them together. For models that are too large or too slow for one GPU; pools may differ."""
    engine: EngineConfig | None = None
    """Overrides the cluster-wide engine section for this pool."""


class Pools(Section, frozen=True, kw_only=True):
    """The pools. Without prefill workers, decode workers serve aggregated."""

    prefill: PoolConfig = PoolConfig(replicas=1)
    decode: PoolConfig = PoolConfig(replicas=2)

    def of(self, role: Role) -> PoolConfig:
        return self.prefill if role is Role.PREFILL else self.decode


class SloConfig(Section, frozen=True, kw_only=True):
    """What users are promised; routing, scheduling and scaling aim for it."""

    ttft_ms: Milliseconds = 500.0
    itl_ms: Milliseconds = 50.0
    enforced: bool = False
    """Refuse at once, with 429 and a time to retry, what nobody is predicted to serve within these: for those who would
    rather have no answer than a late one."""


class RouterConfig(Section, frozen=True, kw_only=True):
    """How the front door chooses workers."""

    policy: str = "dualmap"
    """Who gets a request: `dualmap`, or one of the others in docs/routing.md."""
    policy_options: dict[str, float] = {}
    """Options of the policy, by name; each policy lists its own and refuses others."""
    local_prefill_tokens_max: NonNegative = 32
    """A prompt whose uncached part at its decode worker is at most this long is prefilled there."""
    prefix_index_blocks_max: Positive = 65536
    """Bound of the front door's memory of which worker saw which prompt prefix."""
    replays_max: NonNegative = 3
    """How often a request may be replayed after losses before its client sees an error."""


class TransferConfig(Section, frozen=True, kw_only=True):
    """How KV moves between workers."""

    backend: Literal["nixl", "fake"] = "nixl"
    """`fake` copies within one process and exists for tests."""
    lease_s: Seconds = 10.0
    """A source keeps KV this long after the last renewal."""
    renew_s: Seconds = 1.0
    wait_s: Seconds = 2.0
    """Deadline of one pull, besides the time its bytes need at `expected_bytes_per_s`."""
    expected_bytes_per_s: Annotated[float, Meta(gt=0)] = 200e6
    codecs: tuple[Literal["fp8", "int8"], ...] = ()
    """How KV may be packed to one byte an element where a link is so slow that it pays, the preferred one first; each worker
    measures that. For hosts joined by 10 or 25 Gbit/s. Empty by default: packed KV is not quite what was computed, so the
    output of a request that moved may differ, and that of later ones that find its blocks in the prefix cache."""
    staging_bytes: Positive = 64 * 2**20
    """Memory for packed KV in flight, once for what is pulled from a worker and once for what it pulls; for `codecs` only.
    What has no room goes as it is, so it should hold two chunks of prefill, or whole contexts where those move."""
    net_devices: str = ""
    """UCX_NET_DEVICES; empty lets UCX choose, `lo` keeps a single-host cluster on loopback."""


class TlsConfig(Section, frozen=True, kw_only=True):
    """Mutual TLS between front doors and workers; with it, unix sockets are not used."""

    certificate: str
    key: str
    authority: str


class LinkConfig(Section, frozen=True, kw_only=True):
    """The sockets between our own processes."""

    heartbeat_s: Seconds = 1.0
    dead_after_s: Seconds = 3.0
    """A peer that was silent this long is lost."""
    outbox_bytes_max: Positive = 16 * 2**20
    """A peer that reads so slowly that more than this waits for it is lost."""
    frame_bytes_max: Positive = 64 * 2**20
    report_period_s: Seconds = 0.25
    tls: TlsConfig | None = None


class RateLimits(Section, frozen=True, kw_only=True):
    """How much one front door lets in; several front doors let in as many times that much."""

    requests_per_s: Rate = 0.0
    """Calls; 0 is no limit."""
    tokens_per_s: Rate = 0.0
    """Prompt tokens when a call comes, output tokens as they are generated; 0 is no limit."""
    burst_s: Seconds = 10.0
    """So many seconds' worth may come at once."""


class TenantLimits(Section, frozen=True, kw_only=True):
    """One tenant's own limits; what is left out is as in `each_tenant`."""

    requests_per_s: Rate | None = None
    tokens_per_s: Rate | None = None
    burst_s: Seconds | None = None
    weight: Annotated[float, Meta(gt=0)] = 1.0
    """Its share of a full cluster, beside the 1 of tenants without a section of their own."""


class LimitsConfig(Section, frozen=True, kw_only=True):
    """Rate limits, answered with 429 and Retry-After. Clients name their tenant by `x-tenant-id`."""

    each_tenant: RateLimits = RateLimits()
    """For every tenant; calls without a name are one tenant together."""
    tenants: dict[str, TenantLimits] = {}
    """By name; `""` is calls without one."""
    models: dict[str, RateLimits] = {}
    """By the name clients use; for all tenants together."""

    def of_tenant(self, name: str) -> RateLimits:
        """What holds for one tenant."""
        own = self.tenants.get(name, TenantLimits())
        given = {
            key: value
            for key in RateLimits.__struct_fields__
            if (value := getattr(own, key)) is not None
        }
        return msgspec.structs.replace(self.each_tenant, **given)

    def weight(self, tenant: str) -> float:
        """Its share, in fair queueing."""
        return self.tenants[tenant].weight if tenant in self.tenants else 1.0


class FrontDoorConfig(Section, frozen=True, kw_only=True):
    """HTTP and gRPC entrance."""

    replicas: Positive = 1
    host: str = "127.0.0.1"
    http_port: Port = 8000
    """Front doors of one host share it."""
    serve_proxy: bool | None = None
    """Whether HTTP goes through Ray Serve's proxy, which costs several times the processor time a token. Left out: on a Ray cluster
    that is not ours only. `true` is for those who put other Serve applications beside this one on a Ray of our own. `false` serves
    from the front doors' own processes also on a Ray cluster of several hosts: HTTP is then where a front door is."""
    grpc_port: Port = 9000
    """0 takes any free port; `tercet status` shows it. With several replicas on one host, 0 is needed."""
    in_flight_max: Positive = 256
    """Requests being served by one front door; the next one waits in the queue."""
    queue_max: NonNegative = 256
    """Requests waiting at one front door; the next one gets 429 with Retry-After."""
    queue_wait_s_max: Seconds = 30.0
    body_bytes_max: Positive = 8 * 2**20
    limits: LimitsConfig = LimitsConfig()
    cpus: Annotated[float, Meta(ge=0)] = 0.5


class MigrationConfig(Section, frozen=True, kw_only=True):
    """When running requests move from full decode workers to free ones, by themselves. A worker's freeness is the decode steps
    until its KV is full. Who drains a worker needs none of this."""

    enabled: bool = True
    """Turn it off where a move costs more than a preemption: over a slow network."""
    period_s: Seconds = 1.0
    """Between two looks. Lower it where outputs are so fast that workers fill up in less."""
    low_steps: Annotated[float, Meta(ge=0)] = 16.0
    """A worker with less freeness gives requests away. Raise it where preemptions still happen (`tercet why` tells), lower it
    where requests move that would have ended in time."""
    high_steps: Annotated[float, Meta(ge=0)] = 128.0
    """Only a worker with more freeness takes them. Lower it where all workers are nearly full most of the time."""
    tokens_max: Positive = 4096
    """Moved at once from one worker. Raise it for long contexts: a longer request never moves by itself."""
    dwell_s: Seconds = 2.0
    """A worker that gave or took is left alone for so long. Raise it where requests move to and fro."""
    headroom_tokens: NonNegative = 0
    """A worker counts as so much fuller while a request with a priority above 0 runs there, so others leave it. For those who sell
    priority: set it to what a worker's KV holds beyond the load at which a step is still fast."""


class AutoscalerConfig(Section, frozen=True, kw_only=True):
    """Reference to the scaling policy."""

    policy_file: str = ""
    """Path of a policy file; empty keeps the pools at their replica counts."""


class ControlConfig(Section, frozen=True, kw_only=True):
    """Supervision of workers."""

    health_period_s: Seconds = 1.0
    health_timeout_s: Seconds = 3.0
    restart_backoff_s: Seconds = 0.5
    """Delay before the second restart in a row; doubles up to `restart_backoff_s_max`."""
    restart_backoff_s_max: Seconds = 30.0
    start_timeout_s: Seconds = 300.0
    drain_timeout_s: Seconds = 60.0
    """A worker that is to be drained is stopped after so long with what it still has, which then begins anew elsewhere. Raise it
    where the other workers are often too full to take over what runs there."""
    step_timeout_s: Seconds = 60.0
    """A worker whose engine sits in one step for longer gives up and is replaced. Raise it where steps are that slow (a large
    model on a CPU); lower it where they take milliseconds and no client should wait a minute for a hung one."""


class ClusterConfig(Section, frozen=True, kw_only=True):
    """The whole file."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = "tercet"
    model: ModelConfig
    pools: Pools = Pools()
    engine: EngineConfig = EngineConfig()
    slo: SloConfig = SloConfig()
    router: RouterConfig = RouterConfig()
    transfer: TransferConfig = TransferConfig()
    link: LinkConfig = LinkConfig()
    front_door: FrontDoorConfig = FrontDoorConfig()
    control: ControlConfig = ControlConfig()
    migration: MigrationConfig = MigrationConfig()
    autoscaler: AutoscalerConfig = AutoscalerConfig()

    def engine_of(self, role: Role) -> EngineConfig:
        """The engine section that holds for one pool."""
        return self.pools.of(role).engine or self.engine
