"""What of a method does not go together is told before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith import load_config
from tunesmith.core.errors import ConfigError

BASE = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
PEFT = {"finetuning_type": "peft"}


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        (PEFT, "E-CONFIG-022", "which of PEFT's adapters"),
        ({**PEFT, "peft_type": "vear"}, "E-CONFIG-003", 'did you mean "vera"'),
        ({**PEFT, "peft_type": "oft"}, "E-CONFIG-021", "finetuning_type: oft"),
        ({**PEFT, "peft_type": "xlora"}, "E-CONFIG-022", "adapters"),
        ({**PEFT, "peft_type": "lora"}, "E-CONFIG-021", "finetuning_type: lora"),
        ({**PEFT, "peft_type": "c3a"}, "E-CONFIG-022", "block_size"),
        ({"finetuning_type": "full", "adapter_name_or_path": "a"}, "E-CONFIG-021", "finetuning_type: lora"),
        ({"pissa_init": True, "init_lora_weights": "olora"}, "E-CONFIG-021", "keep one of them"),
        ({"pissa_init": True, "use_dora": True}, "E-CONFIG-021", "use_dora"),
        ({"target_parameters": "w", "lora_dropout": 0.1}, "E-CONFIG-021", "lora_dropout"),
        ({"use_llama_pro": True, "layers_to_transform": "1,2"}, "E-CONFIG-021", "which layers train"),
        ({"use_llama_pro": True, "finetuning_type": "full"}, "E-CONFIG-021", "freeze or lora"),
        ({"layers_to_transform": "1.5"}, "E-CONFIG-004", "numbers of layers"),
        ({"rank_pattern": {"q_proj": 0}}, "E-CONFIG-004", "whole numbers"),
        ({"alpha_pattern": {"q_proj": "x"}}, "E-CONFIG-004", "numbers above 0"),
        (
            {**PEFT, "peft_type": "adalora", "optimizer_in_bwd": True, "max_grad_norm": 0},
            "E-CONFIG-021",
            "let go",
        ),
    ],
)
def test_what_does_not_go_together_is_told(keys: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**BASE, **keys})
    assert code in [problem.code for problem in caught.value.problems]
    assert words in str(caught.value)


def test_the_name_of_a_kind_is_read_in_any_case() -> None:
    assert load_config({**BASE, **PEFT, "peft_type": "VeRA"}).method.kind == "vera"
