"""config.yaml: what ships is valid, every key is documented in it, wrong keys are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from node.config import Settings, load, parse
from node.errors import Misconfigured

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_configurations_load() -> None:
    for path in (ROOT / "config.yaml", ROOT / "docker" / "compose-config.yaml"):
        assert load(path).reception.ae_title == "FALX"


def keys(model: type[BaseModel]) -> set[str]:
    found = set(model.model_fields)
    for field in model.model_fields.values():
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                found |= keys(part)
    return found


def test_every_key_is_named_in_config_yaml_or_the_operations_page() -> None:
    text = (ROOT / "config.yaml").read_text() + (ROOT / "docs" / "operations.md").read_text()
    missing = sorted(key for key in keys(Settings) if key not in text)
    assert missing == []


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"reception": {"prot": 104}}, "reception.prot"),
        ({"reception": {"port": 70000}}, "reception.port"),
        ({"reception": {"ae_title": "A TITLE THAT IS TOO LONG"}}, "reception.ae_title"),
        ({"reception": {"tls": {"certificate": "a"}}}, "reception.tls"),
        (
            {"destinations": [{"name": "a", "ae_title": "A", "host": "h", "port": 1}] * 2},
            "destination names must differ",
        ),
        ("just text", "configuration"),
    ],
)
def test_a_wrong_key_is_named(document: object, named: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(named)):
        parse(document)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nothing\.yaml"):
        load(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(Misconfigured, match="not YAML"):
        load(broken)


def test_the_document_is_plain_yaml() -> None:
    assert set(yaml.safe_load((ROOT / "config.yaml").read_text())) == set(Settings.model_fields)
