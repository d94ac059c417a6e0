import json
from collections.abc import Iterator
from typing import Any

import msgspec

from tercet.config import ClusterConfig
from tercet.config_file import schema


def sections() -> dict[str, dict[str, Any]]:
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    return definitions


def test_the_schema_is_json_and_starts_at_the_whole_file() -> None:
    whole = json.loads(json.dumps(schema()))
    assert whole["$ref"] == "#/$defs/ClusterConfig"
    assert whole["$defs"]["ClusterConfig"]["required"] == ["model"]


def test_docstrings_beneath_keys_become_descriptions() -> None:
    engine = sections()["EngineConfig"]["properties"]
    assert (
        engine["waiting_max"]["description"]
        == "Requests accepted but not started; one more is refused."
    )
    assert engine["waiting_max"]["minimum"] == 1
    model = sections()["ModelConfig"]["properties"]
    assert "description" not in model["dtype"]


def test_every_section_says_what_it_is_and_refuses_unknown_keys() -> None:
    for name, section in sections().items():
        assert section["description"], name
        assert section["additionalProperties"] is False, name


def test_every_key_of_the_configuration_is_in_the_schema() -> None:
    def structs(cls: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
        yield cls
        for field in msgspec.structs.fields(cls):
            for found in (field.type, *getattr(field.type, "__args__", ())):
                if isinstance(found, type) and issubclass(found, msgspec.Struct):
                    yield from structs(found)

    for cls in structs(ClusterConfig):
        keys = {field.encode_name for field in msgspec.structs.fields(cls)}
        assert set(sections()[cls.__name__]["properties"]) == keys
