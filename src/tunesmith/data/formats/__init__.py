"""What the columns of a row mean: one file per format, one line in FORMATS.

A format is a class built on `base.Format`: it names its default columns and turns one row into a `core.types` example,
or raises `RowError`. It reads no files and knows nothing of templates or tokens.
"""

from tunesmith.core.registry import Registry
from tunesmith.data.formats.base import Format

__all__ = ["FORMATS", "Format"]

FORMATS: Registry[type[Format]] = Registry("formatting", code="E-DATA-028")
FORMATS.add("alpaca", "tunesmith.data.formats.alpaca:Alpaca")
FORMATS.add("sharegpt", "tunesmith.data.formats.sharegpt:ShareGPT")
FORMATS.add("openai", "tunesmith.data.formats.openai:OpenAI")
FORMATS.add("trl", "tunesmith.data.formats.trl:TRL")
FORMATS.add("text", "tunesmith.data.formats.text:PlainText")
