"""What the user asked for: keys in sections, loading, checks, schema, and the dataclass of the run's plan.

One file per section. No torch, transformers, datasets or peft in here, and no effects: a key's meaning lives where its
section is used.
"""

from tunesmith.config.load import load_config
from tunesmith.config.plan import RunPlan
from tunesmith.config.run_config import RunConfig, dump_yaml

__all__ = ["RunConfig", "RunPlan", "dump_yaml", "load_config"]
