"""RunConfig: what the user asked for, in sections; and the same as a flat mapping or YAML again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.config.backend import BackendConfig
from tunesmith.config.data import DataConfig
from tunesmith.config.engine import EngineConfig
from tunesmith.config.evaluate import EvaluateConfig
from tunesmith.config.export import ExportConfig
from tunesmith.config.generate import GenerateConfig
from tunesmith.config.keys import all_keys
from tunesmith.config.launch import LaunchConfig
from tunesmith.config.media import MediaConfig
from tunesmith.config.method import MethodConfig
from tunesmith.config.model import ModelConfig
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.optimizer import OptimizerConfig
from tunesmith.config.quantization import QuantizationConfig
from tunesmith.config.serve import ServeConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.config.track import TrackConfig
from tunesmith.config.train import TrainConfig
from tunesmith.core.secrets import hide_in_addresses

__all__ = ["REDACTED", "RunConfig", "dump_yaml"]

REDACTED = "********"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A checked config. Code receives the section it needs, never the whole."""

    verb: str
    model: ModelConfig
    data: DataConfig
    template: TemplateConfig
    method: MethodConfig
    objective: ObjectiveConfig
    train: TrainConfig
    generate: GenerateConfig
    engine: EngineConfig
    serve: ServeConfig
    export: ExportConfig
    track: TrackConfig
    quantization: QuantizationConfig
    media: MediaConfig
    optimizer: OptimizerConfig
    launch: LaunchConfig
    evaluate: EvaluateConfig
    backend: BackendConfig
    values: Mapping[str, Any] = field(repr=False)
    """What the user wrote, converted, under the names that were used."""
    source: str | None = field(default=None, compare=False)
    """The file it came from."""
    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    """What the user should know; printed by the caller."""

    @property
    def user_keys(self) -> frozenset[str]:
        """The keys that the user wrote."""
        return frozenset(self.values)

    def place(self, key: str) -> str:
        """Where a key was written, like `run.yaml:12`; for one that was not, that it is the default."""
        return self.places.get(key, f'key "{key}" (not given)')

    def to_flat(self, defaults: bool = False, secrets: Literal["omit", "redact", "keep"] = "omit") -> dict[str, Any]:
        """One flat mapping that loads again: what the user set, or with `defaults` every key.

        Comma lists become one text again, as the field's tools expect. Access tokens are left out, replaced by
        asterisks, or kept.
        """
        flat = {}
        for name, key in all_keys().items():
            if name not in self.values and not defaults:
                continue
            value = self.values.get(name, key.default)
            if key.mark.secret and value is not None and secrets != "keep":
                if secrets == "omit":
                    continue
                value = REDACTED
            flat[name] = _plain(_without_logins(value) if secrets == "redact" else value)
        return flat


def _without_logins(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_without_logins(one) for one in value)
    return hide_in_addresses(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    if not value:
        return None
    if any(isinstance(item, Mapping) for item in value):
        return list(value)
    texts = [str(item) for item in value]
    if all(isinstance(item, str) for item in value) and any("," in t or t != t.strip() or not t for t in texts):
        return texts
    return ",".join(texts)


def dump_yaml(config: RunConfig, defaults: bool = False, secrets: Literal["omit", "redact", "keep"] = "omit") -> str:
    """The config as YAML, one key per line, in the order of the sections."""
    import yaml

    flat = config.to_flat(defaults, secrets)
    return str(yaml.safe_dump(flat, sort_keys=False, allow_unicode=True, width=1000)) if flat else ""
