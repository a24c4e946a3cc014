"""From files to token arrays: sources -> formats -> mix -> render -> truncate -> pack -> collate.

Belongs here: reading rows, turning them into `core.types` examples, choosing and cutting what is trained on, counting
all of it. Does not belong here: templates and tokens (render); tensors (only the collator makes them, and imports torch
when called).
"""

from tunesmith.data.build import Datasets, build_datasets, read_examples
from tunesmith.data.collate import PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.report import DataReport

__all__ = ["DataReport", "Datasets", "PaddingCollator", "TokenDataset", "build_datasets", "read_examples"]
