"""Each kind of mistake in a cluster file, with the exact message its author will read."""

import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from tercet.config import ClusterConfig, RateLimits
from tercet.config_file import load
from tercet.errors import ConfigError
from tercet.role import Role


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a checkpoint `tiny` and room for a cluster file."""
    (tmp_path / "tiny").mkdir()
    heads = '{"num_attention_heads": 4, "num_key_value_heads": 2}'
    (tmp_path / "tiny" / "config.json").write_text(heads)
    return tmp_path


def read(folder: Path, text: str) -> ClusterConfig:
    file = folder / "cluster.yaml"
    file.write_text(textwrap.dedent(text))
    return load(file)


def test_a_short_file_gets_every_default(folder: Path) -> None:
    config = read(folder, "model: {path: tiny}")
    assert config.model.path == str(folder / "tiny")
    assert config.model.name == "tiny"
    assert config.pools.decode.replicas == 2
    assert config.link.dead_after_s == 3.0


def test_a_long_file_is_read_whole(folder: Path) -> None:
    (folder / "scale.yaml").write_text("{}")
    config = read(
        folder,
        """\
        name: lab
        model: {path: ./tiny, name: small, context_tokens_max: 2048}
        pools:
          prefill: {replicas: 2, labels: {rack: "1", country: no}}
          decode:
            resources: {cpus: 1, custom: {nic: 0.5}}
            engine: {kv_blocks: 0x100, step_tokens_max: 64}
        transfer: {expected_bytes_per_s: 25e9}
        autoscaler: {policy_file: scale.yaml}
        """,
    )
    assert config.model.name == "small"
    assert config.pools.prefill.labels == {"rack": "1", "country": "no"}
    assert config.engine_of(Role.DECODE).kv_blocks == 256
    assert config.engine_of(Role.PREFILL).kv_blocks == 1024
    assert config.pools.decode.resources.custom == {"nic": 0.5}
    assert config.transfer.expected_bytes_per_s == 25e9
    assert config.autoscaler.policy_file == str(folder / "scale.yaml")


def test_limits_are_for_each_tenant_for_some_by_name_and_for_models(folder: Path) -> None:
    limits = read(
        folder,
        """\
        model: {path: tiny}
        front_door:
          limits:
            each_tenant: {requests_per_s: 0.5, burst_s: 60}
            tenants:
              acme: {requests_per_s: 20, weight: 4}
              "": {tokens_per_s: 1000}
            models: {tiny: {tokens_per_s: 1e6}}
        """,
    ).front_door.limits
    assert limits.of_tenant("acme") == RateLimits(requests_per_s=20, burst_s=60)
    assert limits.of_tenant("") == RateLimits(requests_per_s=0.5, tokens_per_s=1000, burst_s=60)
    assert limits.of_tenant("other") == limits.each_tenant
    assert limits.models["tiny"].tokens_per_s == 1e6
    assert (limits.weight("acme"), limits.weight("other")) == (4, 1)


def test_words_of_older_yaml_stay_text(folder: Path) -> None:
    labels = read(
        folder,
        """\
        model: {path: tiny}
        pools: {decode: {labels: {a: no, b: on, c: yes, d: 12:30, e: 2026-11-20, f: off, g: y}}}
        """,
    ).pools.decode.labels
    assert labels == {
        "a": "no", "b": "on", "c": "yes", "d": "12:30", "e": "2026-11-20", "f": "off", "g": "y"
    }  # fmt: skip


def test_one_section_can_be_written_once_and_used_twice(folder: Path) -> None:
    config = read(
        folder,
        """\
        model: {path: tiny}
        pools:
          prefill: {engine: &engine {kv_blocks: 64}}
          decode: {engine: *engine}
        """,
    )
    assert config.engine_of(Role.PREFILL) == config.engine_of(Role.DECODE)


def test_paths_count_from_the_files_folder_and_home_is_expanded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert read(folder, "model: {path: ~/tiny}").model.path == str(folder / "tiny")
    monkeypatch.chdir("/")
    assert load(folder / "cluster.yaml").model.path == str(folder / "tiny")


class Mistake(NamedTuple):
    text: str
    message: str
    """Without the file's name; FOLDER stands for its folder."""


HEAD = "model:\n  path: tiny\n"  # two lines

MISTAKES = {
    "unknown key": Mistake(
        f"{HEAD}pools:\n  decode:\n    replica: 3\n",
        ":5: unknown key `replica` at pools.decode (did you mean `replicas`?)",
    ),
    "unknown section": Mistake(
        f"{HEAD}front-door:\n  http_port: 1\n",
        ":3: unknown key `front-door` (did you mean `front_door`?)",
    ),
    "unknown key without a near one": Mistake(
        f"{HEAD}slo:\n  zzz: 3\n",
        ":4: unknown key `zzz` at slo (valid keys: ttft_ms, itl_ms, enforced)",
    ),
    "merge key": Mistake(
        f"{HEAD}slo:\n  <<: {{ttft_ms: 1}}\n",
        ":4: unknown key `<<` at slo (valid keys: ttft_ms, itl_ms, enforced)",
    ),
    "text for a number": Mistake(
        f"{HEAD}pools:\n  decode:\n    replicas: two\n",
        ":5: expected a whole number, got 'two' at pools.decode.replicas",
    ),
    "fraction for a whole number": Mistake(
        f"{HEAD}engine:\n  kv_blocks: 1.5\n",
        ":4: expected a whole number, got 1.5 at engine.kv_blocks",
    ),
    "quoted number": Mistake(
        f'{HEAD}engine:\n  kv_blocks: "64"\n',
        ":4: expected a whole number, got '64' at engine.kv_blocks",
    ),
    "number for text": Mistake(
        f"{HEAD}name: 12\n", ":3: expected text, got 12 at name (put it in quotes)"
    ),
    "truth for text": Mistake(
        f"{HEAD}name: true\n", ":3: expected text, got true at name (put it in quotes)"
    ),
    "number for a label": Mistake(
        f"{HEAD}pools:\n  decode:\n    labels:\n      zone: a\n      rack: 7\n",
        ":7: expected text, got 7 at pools.decode.labels.rack (put it in quotes)",
    ),
    "truth for a number": Mistake(
        f"{HEAD}slo:\n  ttft_ms: true\n", ":4: expected a number, got true at slo.ttft_ms"
    ),
    "list for a section": Mistake(
        f"{HEAD}slo:\n  - ttft_ms: 1\n", ":3: expected a section, got a list at slo"
    ),
    "list for the whole": Mistake("- model\n", ":1: expected a section, got a list"),
    "empty section": Mistake(
        f"{HEAD}engine:\n# kv_blocks: 64\n",
        ":3: expected a section, got nothing at engine (leave an empty section out)",
    ),
    "section for a number": Mistake(
        f"{HEAD}slo:\n  ttft_ms: {{a: 1}}\n", ":4: expected a number, got a section at slo.ttft_ms"
    ),
    "out of range": Mistake(
        f"{HEAD}engine:\n  block_tokens: 0\n",
        ":4: expected a whole number >= 1, got 0 at engine.block_tokens",
    ),
    "port out of range": Mistake(
        f"{HEAD}front_door:\n  http_port: 80000\n",
        ":4: expected a whole number <= 65535, got 80000 at front_door.http_port",
    ),
    "zero seconds": Mistake(
        f"{HEAD}link:\n  heartbeat_s: 0\n",
        ":4: expected a number > 0.0, got 0 at link.heartbeat_s",
    ),
    "endless seconds": Mistake(
        f"{HEAD}transfer:\n  lease_s: .inf\n",
        ":4: expected a number, got '.inf' at transfer.lease_s",
    ),
    "too large a number": Mistake(
        f"{HEAD}transfer:\n  lease_s: 1e999\n",
        ":4: 1e999 is too large a number at transfer.lease_s",
    ),
    "bad name": Mistake(
        f"{HEAD}name: My Cluster\n",
        ":3: expected text matching regex '^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$', got 'My Cluster' at name",
    ),
    "not a choice": Mistake(
        "model:\n  path: tiny\n  dtype: bfloat\n",
        ":3: 'bfloat' is not one of bfloat16, float16, float32 at model.dtype (did you mean `bfloat16`?)",
    ),
    "not a choice in a list": Mistake(
        f"{HEAD}transfer:\n  codecs: [fp8, int4]\n",
        ":4: 'int4' is not one of fp8, int8 at transfer.codecs[1] (did you mean `int8`?)",
    ),
    "not a choice and not text": Mistake(
        "model:\n  path: tiny\n  device: 0\n", ":3: 0 is not one of cpu, cuda at model.device"
    ),
    "duplicate key": Mistake(
        f"{HEAD}slo: {{ttft_ms: 1}}\nengine: {{}}\nslo: {{itl_ms: 1}}\n",
        ":5: duplicate key `slo` (first on line 3)",
    ),
    "duplicate inner key": Mistake(
        f"{HEAD}slo:\n  ttft_ms: 1\n  ttft_ms: 2\n",
        ":5: duplicate key `ttft_ms` at slo (first on line 4)",
    ),
    "unclosed bracket": Mistake(
        f"{HEAD}slo: {{ttft_ms: 1\n",
        ":4: not valid YAML: expected ',' or '}', but got '<stream end>'",
    ),
    "tab": Mistake(
        f"{HEAD}slo:\n\tttft_ms: 1\n",
        ":4: not valid YAML: found character '\\t' that cannot start any token",
    ),
    "control character": Mistake(
        f"{HEAD}name: a\x07\n", ":3: not valid YAML: special characters are not allowed"
    ),
    "two documents": Mistake(
        f"{HEAD}---\n{HEAD}", ":3: not valid YAML: but found another document"
    ),
    "tag": Mistake(
        "model: !!python/name:os.system\n",
        ":1: the tag 'tag:yaml.org,2002:python/name:os.system' has no meaning here at model",
    ),
    "key of two values": Mistake(f"{HEAD}? [a, b]\n: 1\n", ":3: a key must be text"),
    "alias inside itself": Mistake(
        "model: &m\n  path: *m\n", ":2: this alias contains itself at model.path"
    ),
    "empty file": Mistake("# nothing yet\n", ": the file is empty (it needs at least model.path)"),
    "no model": Mistake("slo:\n  ttft_ms: 1\n", ":1: the key `model` is missing"),
    "no path": Mistake("slo: {}\nmodel:\n  name: x\n", ":2: the key `path` is missing at model"),
    "no such checkpoint": Mistake(
        "model:\n  path: huge\n",
        ":2: no checkpoint: FOLDER/huge/config.json does not exist at model.path",
    ),
    "no policy file": Mistake(
        f"{HEAD}autoscaler:\n  policy_file: x.yaml\n",
        ":4: no policy file: FOLDER/x.yaml does not exist at autoscaler.policy_file",
    ),
    "no certificate": Mistake(
        f"{HEAD}link:\n  tls: {{certificate: c.pem, key: k.pem, authority: a.pem}}\n",
        ":4: no file: FOLDER/c.pem does not exist at link.tls.certificate",
    ),
    "no decode worker": Mistake(
        f"{HEAD}pools:\n  decode:\n    replicas: 0\n",
        ":5: at least one decode worker is needed at pools.decode.replicas",
    ),
    "cuda without a GPU": Mistake(
        "model: {path: tiny, device: cuda}\npools:\n  prefill: {replicas: 0}\n",
        ":2: a worker on cuda needs a share of a GPU, else Ray hides every GPU from it"
        " at pools.decode.resources.gpus (set it to 1, or model.device to cpu)",
    ),
    "a GPU for two processes": Mistake(
        "model: {path: tiny, device: cuda}\npools:\n  prefill: {replicas: 0}\n"
        "  decode:\n    resources: {gpus: 1}\n    tensor_parallel: 2\n",
        ":6: 2 processes need a GPU each at pools.decode.tensor_parallel"
        " (set resources.gpus to 2; it is 1)",
    ),
    "packed KV of several processes": Mistake(
        f"{HEAD}transfer: {{codecs: [fp8]}}\npools:\n  decode: {{tensor_parallel: 2}}\n",
        ":5: packed KV is of all heads, so it cannot be pulled from or by a worker of several processes"
        " at pools.decode.tensor_parallel (leave out transfer.codecs, or set it to 1)",
    ),
    "KV of several processes in host memory": Mistake(
        f"{HEAD}engine: {{host_kv_blocks: 9}}\npools:\n  decode: {{tensor_parallel: 2}}\n",
        ":5: a worker of several processes keeps no KV in host memory"
        " at pools.decode.tensor_parallel (leave out engine.host_kv_blocks, or set it to 1)",
    ),
    "heads that cannot be shared out": Mistake(
        f"{HEAD}pools:\n  decode: {{tensor_parallel: 3}}\n",
        ":4: 4 heads and 2 KV heads of the model cannot be shared out evenly among 3 processes"
        " at pools.decode.tensor_parallel (2 is the largest number that can be used)",
    ),
    "blocks that do not fit": Mistake(
        f"{HEAD}pools:\n  decode:\n    engine:\n      block_tokens: 64\n",
        ":6: prefill blocks of 16 tokens do not fit decode blocks of 64"
        " at pools.decode.engine.block_tokens",
    ),
    "too few blocks": Mistake(
        "model: {path: tiny, context_tokens_max: 2048}\nengine:\n  kv_blocks: 100\n",
        ":3: 100 blocks of 16 tokens cannot hold one context at engine.kv_blocks"
        " (model.context_tokens_max is 2048)",
    ),
    "blocks of a GPU on a CPU": Mistake(
        f"{HEAD}engine:\n  kv_blocks: 0\n",
        ":4: 0 blocks: only on a GPU as many are taken as fit at engine.kv_blocks",
    ),
    "slow heartbeat": Mistake(
        f"{HEAD}link:\n  heartbeat_s: 3\n",
        ":4: heartbeats every 3 s are too slow for peers that count as lost after 3 s"
        " at link.heartbeat_s",
    ),
    "slow renewal": Mistake(
        f"{HEAD}transfer:\n  lease_s: 0.5\n",
        ":3: a lease of 0.5 s ends before its renewal after 1 s at transfer.renew_s",
    ),
    "backoff above its bound": Mistake(
        f"{HEAD}control:\n  restart_backoff_s: 60\n",
        ":4: the first delay is above restart_backoff_s_max, 30 s at control.restart_backoff_s",
    ),
    "limit of no model": Mistake(
        f"{HEAD}front_door:\n  limits:\n    models:\n      big: {{tokens_per_s: 9}}\n",
        ":6: no model 'big' is served here at front_door.limits.models.big"
        " (this cluster serves `tiny`)",
    ),
    "limit below zero": Mistake(
        f"{HEAD}front_door:\n  limits:\n    tenants:\n      acme:\n        tokens_per_s: -1\n",
        ":7: expected a number >= 0.0, got -1 at front_door.limits.tenants.acme.tokens_per_s",
    ),
    "limit in words": Mistake(
        f"{HEAD}front_door:\n  limits:\n    tenants:\n      acme: {{requests_per_s: many}}\n",
        ":6: expected a number, got 'many' at front_door.limits.tenants.acme.requests_per_s",
    ),
    "weight of nothing": Mistake(
        f"{HEAD}front_door:\n  limits:\n    tenants:\n      acme: {{weight: 0}}\n",
        ":6: expected a number > 0.0, got 0 at front_door.limits.tenants.acme.weight",
    ),
    "weight of everybody": Mistake(
        f"{HEAD}front_door:\n  limits:\n    each_tenant: {{weight: 2}}\n",
        ":5: unknown key `weight` at front_door.limits.each_tenant"
        " (valid keys: requests_per_s, tokens_per_s, burst_s)",
    ),
    "one port for two": Mistake(
        f"{HEAD}front_door:\n  grpc_port: 8000\n",
        ":4: HTTP has port 8000 already at front_door.grpc_port",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_refused_with_its_line_and_reason(folder: Path, mistake: Mistake) -> None:
    file = folder / "cluster.yaml"
    file.write_text(mistake.text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{file}{mistake.message.replace('FOLDER', str(folder))}"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: no such file"):
        load(tmp_path / "nowhere.yaml")


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"model:\n  path: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: not UTF-8 text"):
        load(file)


def test_free_ports_may_be_asked_for_twice(folder: Path) -> None:
    config = read(folder, "model: {path: tiny}\nfront_door: {http_port: 0, grpc_port: 0}\n")
    assert config.front_door.grpc_port == 0


def test_a_linked_checkpoint_keeps_the_path_it_was_given(folder: Path) -> None:
    (folder / "store").mkdir()
    (folder / "store" / "blob").write_text("{}")
    (folder / "snapshot").mkdir()
    (folder / "snapshot" / "config.json").symlink_to(folder / "store" / "blob")
    assert read(folder, "model: {path: snapshot}").model.path == str(folder / "snapshot")
