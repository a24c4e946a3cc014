"""Tunesmith: fine-tune open language models. Importing it imports none of the heavy packages."""

from tunesmith._version import __version__

__all__ = ["__version__"]
