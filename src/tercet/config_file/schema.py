"""The cluster file as a JSON Schema, with the docstrings of `tercet.config` as descriptions, for editors and people."""

import ast
import inspect

import msgspec

from tercet import config

Schema = dict[str, object]


def schema() -> Schema:
    """A JSON Schema (2020-12) of the cluster file; every documented key carries its description."""
    (whole,), definitions = msgspec.json.schema_components(
        [config.ClusterConfig], ref_template="#/$defs/{name}"
    )
    for section, keys in _docstrings().items():
        properties = definitions.get(section, {}).get("properties", {})
        for key, description in keys.items():
            properties[key]["description"] = description
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tercet cluster file",
        **whole,
        "$defs": definitions,
    }


def _docstrings() -> dict[str, dict[str, str]]:
    """Section class → key → the text beneath it. Python keeps no docstrings of attributes, so the source is read."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(config)).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = {
                field.target.id: inspect.cleandoc(text.value.value)
                for field, text in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            }
    return found
