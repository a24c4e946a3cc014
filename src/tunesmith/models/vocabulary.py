"""New tokens: they go into the tokenizer before anything is rendered, and get rows of the model's embeddings.

A row begins as the mean of the rows of all tokens that the model knows, plus noise of their own spread (LlamaFactory
takes 1 / sqrt(H) whatever the model), so that the new token is about as likely as any other
(https://nlp.stanford.edu/~johnhew/vocab-expansion.html); or as the mean of the rows of its description. Rows that only
fill up to a multiple of 64 are the mean.

V rows, H hidden.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.new_tokens import new_tokens
from tunesmith.core.errors import MachineError, MissingInputError, Problem, UsageError
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tunesmith.config.model import ModelConfig

__all__ = ["MULTIPLE", "add_new_tokens", "check_trained", "fresh_tokens", "grow", "warn_if_unseen"]

MULTIPLE = 64
"""Of this the number of rows is a multiple, where it changes: kernels of matrix products like it."""


_LOOK = 2**20  # ids at a time


@dataclass(frozen=True, slots=True)
class Added:
    """What `add_new_tokens` did to a tokenizer: ids of new tokens, and ids of the descriptions of some of them."""

    ids: tuple[int, ...]
    descriptions: Mapping[int, Sequence[int]]


def add_new_tokens(tokenizer: Any, config: ModelConfig) -> None:
    """Add the tokens that were saved beside adapters, then those of the config, and note which were new.

    Raises MissingInputError where an adapter's tokens have other numbers than this tokenizer gives them.
    """
    before = tokenizer.get_vocab()
    for adapter in config.adapter_name_or_path:
        _add_those_of(adapter, config.adapter_folder, tokenizer)
    known, wanted = tokenizer.get_vocab(), new_tokens(config)
    for token in wanted:
        _add(tokenizer, token.text, special=token.special)
    if there := [token.text for token in wanted if token.text in known]:
        get_logger().info("tokens that the vocabulary has already: %s", ", ".join(there))
    described = {
        tokenizer.convert_tokens_to_ids(token.text): tokenizer.encode(token.description, add_special_tokens=False)
        for token in wanted
        if token.description is not None
    }
    fresh = (number for text, number in tokenizer.get_vocab().items() if text not in before)
    tokenizer.added_here = Added(tuple(sorted(fresh)), described)


def _add(tokenizer: Any, text: str, *, special: bool, **flags: bool) -> None:
    from transformers import AddedToken

    token = AddedToken(text, special=special, **{"normalized": False, **flags})
    if special:
        tokenizer.add_special_tokens({"extra_special_tokens": [token]}, replace_extra_special_tokens=False)
    else:
        tokenizer.add_tokens([token])


def _add_those_of(adapter: str, folder: str | None, tokenizer: Any) -> None:
    """The added tokens of the tokenizer.json beside an adapter that is a folder here."""
    place = Path(adapter).expanduser() / (folder or "") / "tokenizer.json"
    if not place.is_file():
        return
    try:
        saved = json.loads(place.read_text(encoding="utf-8"))["added_tokens"]
    except (OSError, ValueError, KeyError) as error:
        what, fix = "the tokenizer beside the adapter cannot be read", "get the adapter again"
        raise MissingInputError(Problem("E-MODEL-016", what, str(place), type(error).__name__, fix)) from error
    known, size, trained = tokenizer.get_vocab(), len(tokenizer), _trained_rows(place.parent)
    missing = (one for one in saved if one["content"] not in known)
    # What the tokenizer of another base calls by lower numbers was not added.
    more = [one for one in missing if int(one["id"]) >= size or int(one["id"]) in trained]
    for token in sorted(more, key=lambda one: int(one["id"])):
        flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized")}
        _add(tokenizer, token["content"], special=bool(token["special"]), **flags)
        number = tokenizer.convert_tokens_to_ids(token["content"])
        if number != token["id"]:
            what = "a token that was added for the adapter would get another number here"
            fix = "name the base model that the adapter was trained on in model_name_or_path"
            got = f"{token['content']} is {token['id']} there, and {number} here"
            raise MissingInputError(Problem("E-MODEL-016", what, f"adapter_name_or_path: {adapter}", got, fix))


def _trained_rows(folder: Path) -> set[int]:
    """Numbers of tokens whose rows an adapter holds, as its settings say; the adapter's own reader tells what is wrong
    with these."""
    try:
        found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("trainable_token_indices")
    except (OSError, ValueError, AttributeError):
        return set()
    lists = found.values() if isinstance(found, dict) else [found or []]
    return {int(number) for numbers in lists for number in numbers}


def fresh_tokens(model: Any) -> tuple[int, ...]:
    """Ids of tokens whose rows `grow` made: untrained, of the input and the output layer."""
    found: tuple[int, ...] = getattr(model, "fresh_tokens", ())
    return found


def grow(model: Any, tokenizer: Any, config: ModelConfig, seed: int) -> None:
    """Give each new token of the tokenizer a row, in the embeddings and in an output layer of its own. The model keeps
    which they are (`fresh_tokens`).

    Raises MissingInputError where the tokenizer has more tokens than there are rows, and nothing asks for new ones.
    """
    added: Added = getattr(tokenizer, "added_here", Added((), {}))
    rows, tokens = _rows(model), max((len(tokenizer), *(number + 1 for number in added.ids)))
    if tokens > rows:
        if not (config.resize_vocab or added.ids):
            raise MissingInputError(_too_few(rows, tokens, str(config.model_name_or_path)))
        _resize(model, tokens, config)
    fresh = tuple(sorted({*added.ids, *range(rows, tokens)}))
    if not fresh:
        return
    known, total = min(fresh[0], rows), _rows(model)
    filling = range(max(rows, tokens), total)
    described = added.descriptions if config.init_special_tokens != "noise_init" else {}
    noisy = config.init_special_tokens != "desc_init"
    for weight in _tables(model):
        begin = _Beginning(weight.data[:known], seed)
        for number in fresh:
            weight.data[number] = begin.row(described.get(number), noise=noisy or number not in described)
        weight.data[list(filling)] = begin.mean.to(weight.dtype)
    _begin_biases(model, known)
    model.fresh_tokens = fresh
    get_logger().info("vocabulary: %s", _told(tokenizer, fresh, rows, total))


class _Beginning:
    """Of rows of one table. `known` [K, H]: those of tokens that the model knows; the noise has one seed a table."""

    def __init__(self, known: torch.Tensor, seed: int) -> None:
        import torch

        self.known = known
        self.mean = known.mean(dim=0, dtype=torch.float32)
        self._spread = float(known.float().std(dim=0).mean())
        self._generator = torch.Generator().manual_seed(seed)

    def row(self, description: Sequence[int] | None, *, noise: bool) -> torch.Tensor:
        """[H] float32."""
        import torch

        words = [number for number in description or () if number < len(self.known)]
        row = self.known[words].float().mean(dim=0) if words else self.mean
        if noise or not words:
            row = row + self._spread * torch.randn(row.shape, generator=self._generator).to(row.device)
        return row


def _rows(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _tables(model: Any) -> Iterable[Any]:
    """The weights [V, H] of embeddings and output layer, one where they are tied."""
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    tables = [layer.weight for layer in layers if layer is not None]
    return tables[:1] if len(tables) == 2 and tables[0] is tables[1] else tables


def _begin_biases(model: Any, known: int) -> None:
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        bias.data[known:] = bias.data[:known].mean()


def _resize(model: Any, tokens: int, config: ModelConfig) -> None:
    try:
        model.resize_token_embeddings(tokens, pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        what = "the embeddings of this model cannot grow"
        where = f"model_name_or_path: {config.model_name_or_path}"
        fix = "a model whose output layer is a plain linear one, without added tokens otherwise"
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MachineError(Problem("E-MODEL-017", what, where, got, fix)) from error


def _too_few(rows: int, tokens: int, name: str) -> Problem:
    return Problem(
        "E-MODEL-007",
        "the tokenizer knows more tokens than the model has embeddings for",
        where=f"model_name_or_path: {name}",
        got=f"{tokens} tokens, {rows} embedding rows",
        fix="the tokenizer is of another model: use the model's own; or tokens were added to it: resize_vocab: true",
    )


def _told(tokenizer: Any, fresh: Sequence[int], rows: int, total: int) -> str:
    names = [repr(tokenizer.convert_ids_to_tokens(number)) for number in fresh[:5]]
    more = f" and {len(fresh) - 5} more" if len(fresh) > 5 else ""
    size = f"{total} rows" if total == rows else f"{rows} rows become {total}"
    return f"{len(fresh)} new tokens ({', '.join(names)}{more}), {size}"


def warn_if_unseen(tokenizer: Any, texts: Iterable[npt.NDArray[np.int32]]) -> None:
    """Say which new tokens stand nowhere in these arrays of ids: nothing would be learnt of them."""
    added: Added = getattr(tokenizer, "added_here", Added((), {}))
    unseen = set(added.ids)
    for ids in texts:
        for start in range(0, len(ids) if unseen else 0, _LOOK):
            unseen -= unseen.intersection(ids[start : start + _LOOK].tolist())
    if unseen:
        names = ", ".join(repr(tokenizer.convert_ids_to_tokens(number)) for number in sorted(unseen)[:5])
        text = (
            "%d new tokens stand nowhere in the training data (%s); special ones that a dataset writes on purpose "
            'need "trusted_markup": true in its entry of dataset_info.json'
        )
        get_logger().warning(text, len(unseen), names)


def check_trained(model: Any, config: ModelConfig) -> None:
    """After the method was applied: rows of new tokens that do not train stay what they began as. Raises UsageError for
    an adapter that goes on without rows for them, warns otherwise."""
    fresh = fresh_tokens(model)
    if not fresh or config.init_special_tokens == "desc_init":
        return
    embeddings = model.get_input_embeddings()
    if any(one.requires_grad for one in embeddings.parameters()):
        return
    if hasattr(model, "peft_config"):
        what = "the rows of new tokens would not be trained: the adapter that goes on has none for them"
        fix = "create_new_adapter: true, or the tokens that the adapter was trained with"
        raise UsageError(Problem("E-MODEL-018", what, "adapter_name_or_path", f"{len(fresh)} tokens", fix))
    get_logger().warning("the rows of new tokens are frozen, as %s", "freeze_extra_modules names no embeddings")
