"""One optimizer step over a few rows, split as one likes, by our Trainer: its loss and gradient.

`take_step` runs it in this process. `Ranks` is a pair of processes that stay, one rank each, and run it together.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from tests.tiny_models import tiny_model
from tests.token_losses import CASES
from tests.two_ranks import TwoRanks

LAYOUTS = ("padded", "flat", "packs", "rows of packs")
WAYS = ("chunked", "adapted", "kept", "full")
VOCABULARY = 97
CUTOFF = 24  # tokens of a pack


@dataclass(frozen=True)
class Row:
    """A sequence; `weights` of its tokens, 0 for what is not trained."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Step:
    """Rows of one step, the loss (a name of CASES) and the split. With more micro-batches than there are rows for, the
    last ones are not there or, on one of several ranks, blank. `weighted`: whether the batches hold weights."""

    rows: tuple[Row, ...]
    case: str
    way: str
    layout: str
    batch: int
    spare: int
    weighted: bool


def take_step(step: Step, world_size: int = 1) -> tuple[float, Tensor]:
    """(loss as logged, gradient of all weights as one float64 vector) before the first optimizer step."""
    from tunesmith.config.objective import ObjectiveConfig
    from tunesmith.objectives import OBJECTIVES

    dataset, collate = rows_and_collate(step)
    keys = dict(CASES[step.case].keys)
    smoothing = keys.pop("label_smoothing_factor", 0.0)
    model = make_model(step.way, "sdpa" if step.layout == "rows of packs" else "varlen")
    objective = OBJECTIVES.get("sft")(ObjectiveConfig(**keys), label_smoothing=smoothing)
    told, gradient = first_step(
        model, objective, dataset, collate, batch=step.batch, spare=step.spare, world_size=world_size
    )
    return told["loss"], gradient


def first_step(
    model: Any, objective: Any, dataset: Any, collate: Any, *, batch: int, spare: int, world_size: int
) -> tuple[dict[str, float], Tensor]:
    """One step over all rows, in micro-batches of `batch` rows a rank and `spare` more for which there are none:
    (what the log tells of it, gradient of all weights as one float64 vector). The weights stay as they are."""
    from transformers import Seq2SeqTrainingArguments, TrainerCallback

    from tunesmith.train.trainer import Trainer

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            self.gradient = flat_gradient(model)

    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=-(-len(dataset) // (batch * world_size)) + spare,
            max_steps=1,
            max_grad_norm=0.0,
            learning_rate=0.0,
            optim="sgd",
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            ddp_find_unused_parameters=False,
        )
        watch = Watch()
        trainer = Trainer(
            model=model,
            args=arguments,
            objective=objective,
            collate=collate,
            train_dataset=dataset,
            callbacks=[watch],
        )
        trainer.train()
    return next(line for line in trainer.state.log_history if "loss" in line), watch.gradient


def rows_and_collate(step: Step) -> tuple[Any, Any]:
    from tunesmith.core.types import Encoded
    from tunesmith.data.collate import FlatCollator, PaddingCollator
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.data.pack import pack

    rows = TokenDataset.from_encoded(
        Encoded(row.ids, [one != 0 for one in row.weights], weights=row.weights if step.weighted else None)
        for row in step.rows
    )
    dataset = pack(rows, CUTOFF, seed=0) if "packs" in step.layout else rows
    if step.layout == "padded":
        return dataset, PaddingCollator(0)
    return dataset, FlatCollator(0, one_row=step.layout != "rows of packs")


def make_model(way: str | None, attention: str) -> Any:
    """A tiny Llama, the same at each call, whose forward ends in the loss; with `way` None as transformers made it."""
    from tunesmith.models import attention as ours
    from tunesmith.models.loss_forward import HeadFacts, install

    ours.register()
    model = tiny_model("llama", attention)
    if way is not None:
        install(model, "chunked" if way == "adapted" else way, HeadFacts())  # type: ignore[arg-type]
    return with_adapter(model) if way == "adapted" else model


def with_adapter(model: Any) -> Any:
    """Adapters on the output layer and on one below it, which are not zero."""
    from peft import LoraConfig, get_peft_model

    found = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head", "q_proj"]))
    torch.manual_seed(1)
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return found


def flat_gradient(model: Any) -> Tensor:
    weights = [one for one in model.parameters() if one.requires_grad]
    return torch.cat([(torch.zeros_like(w) if w.grad is None else w.grad).flatten().double() for w in weights])


@cache
def plain_model(adapted: bool) -> Any:
    model = make_model(None, "eager")
    return with_adapter(model) if adapted else model


def one_by_one(step: Step) -> tuple[float, Tensor]:
    """What the step should give: each row alone through transformers' own forward, the formulas on whole logits, and
    the sum divided by the weights of all trained tokens."""
    model = plain_model(step.way == "adapted")
    model.zero_grad()
    total, units = torch.zeros((), dtype=torch.float64), 0.0
    for row in step.rows:
        weights = torch.tensor(row.weights[1:], dtype=torch.float64)
        if not weights.any():
            continue
        ids = torch.tensor(row.ids)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        each = CASES[step.case].each(logits[weights != 0], ids[1:][weights != 0])
        weights = weights[weights != 0] if step.weighted else torch.ones(len(each), dtype=torch.float64)
        total = total + (each.double() * weights).sum()
        units += float(weights.sum())
    loss = total / (units or 1.0)
    if loss.requires_grad:
        loss.backward()
    return float(loss.detach()), flat_gradient(model)


class Ranks:
    """Two processes that take steps together. `module`: where the `take_step` is that they take."""

    def __init__(self, module: str = __name__) -> None:
        self._pair = TwoRanks([module, "tunesmith.train.trainer", "peft", "transformers"])
        self._module = module
        self.close = self._pair.close

    def take(self, step: Any) -> tuple[Any, Tensor]:
        """As `take_step`; both ranks have to come to the same."""
        (loss, gradient), (other, other_gradient) = self._pair.call(_take_one_of_two, self._module, step)
        assert loss == other
        assert torch.equal(torch.from_numpy(gradient), torch.from_numpy(other_gradient))
        return loss, torch.from_numpy(gradient)


def _take_one_of_two(module: str, step: Any) -> tuple[Any, Any]:
    told, gradient = import_module(module).take_step(step, world_size=2)
    return told, gradient.numpy()
