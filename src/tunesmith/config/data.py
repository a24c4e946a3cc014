"""Which rows are read, how they are mixed, split, cut and packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import later, never, section, works


@section
class DataConfig:
    """From dataset names to token sequences."""

    dataset: tuple[str | Mapping[str, Any], ...] = works(())
    """Comma list of training datasets: names of `dataset_info.json`, paths, addresses, names of the hub; or a list,
    also of mappings (docs/data.md)."""
    eval_dataset: tuple[str | Mapping[str, Any], ...] = works(())
    """Comma list of evaluation datasets, named like `dataset`."""
    dataset_dir: str | Mapping[str, Any] = works("data")
    """Folder of `dataset_info.json` and the files it names, or that table itself; also `REMOTE:owner/name` and `ONLINE`
    (docs/data.md)."""
    offline: bool = works(False)
    """Ask no network for datasets: read what was fetched before, or say what is missing."""
    media_dir: str | None = works(None)
    """Folder that paths of images, video and audio start from; left out, the folder of the dataset."""
    cutoff_len: int = works(2048, least=2)
    """Most tokens per example; `on_too_long` says what becomes of one that is longer."""
    on_too_long: Literal["truncate", "drop", "split", "error"] = works("truncate")
    """An example longer than `cutoff_len` keeps as many whole turns as fit, is left out, becomes several at the borders
    of its turns, or stops the run."""
    streaming: bool = works(False)
    """Read the rows of `dataset` while training, in windows of `buffer_size`, not before it. Needs `max_steps`."""
    buffer_size: int = works(16384, least=1)
    """Rows of a stream that are read, shuffled and packed together."""
    mix_strategy: Literal["concat", "interleave_under", "interleave_over", "interleave_once"] = works("concat")
    """How several datasets become one: one after the other, or interleaved until the first or the last runs out."""
    interleave_probs: tuple[float, ...] = works(())
    """Comma list with the share of each dataset when interleaving."""
    overwrite_cache: bool = works(False)
    """Prepare the data again even if it is cached; a changed file or setting is noticed without this."""
    preprocessing_batch_size: int = works(1000, least=1)
    """Rows that go through parsing, rendering and tokenising at a time."""
    preprocessing_num_workers: int | None = works(None, least=0)
    """Processes that prepare data; left out, one per core for large files on Linux; 0: none but the run's own."""
    max_samples: int | None = works(None, least=1)
    """Take only this many rows of each dataset."""
    ignore_pad_token_for_loss: bool = never(True, "padding is never trained on: leave the key out")
    """Keep padding out of the loss."""
    val_size: float = works(0.0, least=0)
    """Part of the training data kept for evaluation: a share below 1, or a number of rows."""
    eval_on_each_dataset: bool = works(False)
    """Report the evaluation of each dataset by itself."""
    packing: bool | None = works(None)
    """Fill rows of `cutoff_len` tokens with several examples, none of which sees another; left out, on for pre-training
    only. A batch counts rows."""
    neat_packing: bool = works(False)
    """The same as `packing: true`: here no example ever sees another."""
    tokenized_path: str | None = works(None)
    """Folder for the prepared data, in place of the cache; an error if it holds what was made otherwise."""
    data_shared_file_system: bool = later(False, "preparing data once for several machines")
    """All machines see the same files, so only the first prepares data."""
    on_bad_row: Literal["error", "skip"] = works("error")
    """What happens to a row that cannot be used: stop with its place, or leave it out and count it."""
    on_bad_media: Literal["error", "skip"] = works("error")
    """What happens to a row with a picture, film or sound that cannot be used: stop with its place, or leave it out and
    count it."""
    max_bad_rows: int | None = works(None, least=0)
    """With `on_bad_row: skip` or `on_bad_media: skip`, stop after all when more rows than this are bad."""

    def packs(self, stage: str) -> bool:
        """Do several sequences share a row?"""
        return bool(self.packing or self.neat_packing or (self.packing is None and stage == "pt"))
