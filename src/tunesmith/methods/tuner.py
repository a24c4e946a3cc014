"""Every other kind of adapter that PEFT has, by its name (`peft_type`) and its settings (`peft_settings`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tunesmith.config.tuners import TUNERS, Tuner
from tunesmith.core.errors import MachineError, Problem
from tunesmith.methods import shadow, xlora
from tunesmith.methods.adalora import BudgetCallback, make_ready, provisional
from tunesmith.methods.adapter import AdapterMethod, with_settings
from tunesmith.methods.base import Given
from tunesmith.methods.tasks import number_tasks

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import TrainerCallback

    from tunesmith.models.family import Family

__all__ = ["AnyTuner"]

_KEYS = {
    "target_modules": "lora_target",
    "modules_to_save": "additional_target",
    "layers_to_transform": "layers_to_transform",
}
_MODULES = {"scikit-learn": "sklearn"}


class AnyTuner(AdapterMethod):
    @property
    def kind(self) -> str:
        return str(self.config.peft_type).lower()

    @property
    def tuner(self) -> Tuner:
        return TUNERS[self.kind]

    def check(self) -> None:
        _check_package(self.kind, self.tuner)
        if self.kind == "xlora":
            xlora.check_experts(self.config.peft_settings)

    def apply(self, model: Any, given: Given) -> Any:
        made = super().apply(model, given)
        number_tasks(made)
        tell_model(made, given.keep_dtype)
        return made

    def settings(self, model: Any, family: Family) -> PeftConfig:
        from peft import PeftType
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

        name, tuner = self.kind, self.tuner
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]
        found: dict[str, Any] = {"task_type": "CAUSAL_LM", **tuner.defaults, **self.common()}
        if tuner.places == "linear":
            found["target_modules"] = self.targets(model, family, "lora_target", self.config.lora_target)
        own = dict(self.config.peft_settings)
        if name == "adalora":
            found |= provisional(own)
        elif name == "xlora":
            own |= xlora.settings_for(model, own)
        return with_settings(kind, found, own, _KEYS)

    def callbacks(self, model: Any) -> list[TrainerCallback]:
        if self.kind != "adalora":
            return []
        own = self.config.peft_settings
        return [BudgetCallback(model, {name: int(own[name]) for name in ("tinit", "tfinal") if name in own})]


def _check_package(name: str, tuner: Tuner) -> None:
    if tuner.package and find_spec(_MODULES.get(tuner.package, tuner.package)) is None:
        what = f"peft_type: {name} needs a package that is not installed"
        raise MachineError(Problem("E-METHOD-014", what, "peft_type", tuner.package, f"pip install {tuner.package}"))


def tell_model(model: Any, keep_dtype: bool) -> None:
    """What the forward that ends in the loss has to know of the adapter on `model`, and what PEFT leaves to be done."""
    from tunesmith.models.loss_forward import LossForward

    settings = model.peft_config[model.active_adapter]
    tuner = TUNERS[settings.peft_type.value.lower()]
    if tuner.places == "embeds":
        LossForward.within(model).shift = settings.num_virtual_tokens
    if settings.peft_type.value == "ADALORA":
        make_ready(model)
    elif settings.peft_type.value == "XLORA":
        xlora.make_ready(model, keep_dtype)
    elif settings.peft_type.value == "SHADOW":
        shadow.make_ready(model, keep_dtype)
