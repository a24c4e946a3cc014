"""Load a model's processor, without its weights: `Media` for a model that sees or hears, None for one that reads."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MachineError, MissingInputError, Problem, TunesmithError, UsageError
from tunesmith.core.types import Medium
from tunesmith.media.family import MediaFamily
from tunesmith.media.limits import MediaLimits
from tunesmith.media.processor import Media, Missing, modalities
from tunesmith.models.families.media import MEDIA
from tunesmith.models.locate import gguf_file, located
from tunesmith.models.quiet import quiet_libraries
from tunesmith.models.tokenizer import first_line, hub_arguments, load_tokenizer, refuse_foreign_code

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["family_of_type", "load_media", "make_media", "media_family_of", "with_gaps"]

_FILES = ("processor_config.json", "preprocessor_config.json")
"""What transformers loads a processor from; a folder has one of them, or both."""


def media_family_of(processor: str) -> MediaFamily:
    """Of a processor, by the name of its class."""
    return MediaFamily(**MEDIA.get(processor, {}))


def family_of_type(model_type: str) -> MediaFamily:
    """Of the processor that transformers has for a type of models; the defaults, where it has none."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    return media_family_of(PROCESSOR_MAPPING_NAMES.get(model_type) or "")


def load_media(config: ModelConfig, limits: MediaLimits, tokenizer: Any) -> Media | None:
    """The model's processor around `tokenizer`, which gets the tokens that a processor adds, and the chat template that
    lies beside a processor if it has none. `limits`: how media are brought to size.

    Raises MissingInputError (E-MEDIA-044) for a processor that cannot be loaded, MachineError (E-MEDIA-041) for one
    that needs a package which is not installed, UsageError (E-MEDIA-047) for one that is code of a repository.
    """
    config = located(config)
    name, arguments = str(config.model_name_or_path), hub_arguments(config)
    if gguf_file(name) or _reads_only(name):  # GGUF is a format of language models
        return None
    quiet_libraries()
    try:
        found = _settings(name, arguments)
        if found is None:
            return None
        cls, settings = found
        _refuse_dummy(cls, name)
        if not tokenizer.chat_template and isinstance(template := settings.get("chat_template"), str):
            tokenizer.chat_template = template
        parts = [_part(part, name, arguments, tokenizer) for part in cls.get_attributes()]
        processor = with_gaps(cls).from_args_and_dict(parts, settings)
    except TunesmithError:
        raise
    except ImportError as error:
        fix = "install it, in a release that fits the installed torch"
        what = "the processor of this model needs a package that is not installed"
        where = f"model_name_or_path: {name}"
        raise MachineError(Problem("E-MEDIA-041", what, where, first_line(error), fix)) from error
    except Exception as error:  # faulty files end in errors of every kind
        refuse_foreign_code(error, name)
        fix = "the folder or repository needs preprocessor_config.json and what else its processor was saved with"
        where = f"model_name_or_path: {name}"
        what = "the model's processor of images, video and sound cannot be loaded"
        raise MissingInputError(Problem("E-MEDIA-044", what, where, first_line(error), fix)) from error
    return make_media(processor, limits, origin=(_again, (config, limits)))


def make_media(
    processor: Any,
    limits: MediaLimits,
    *,
    read: Callable[[Medium], Any] | None = None,
    origin: Any = None,
) -> Media:
    """`Media` of a processor that is there. Raises MissingInputError (E-MEDIA-044) where the tokenizer has no
    token that stands for media, UsageError (E-MEDIA-045) for a rate of sound that the processor does not take."""
    if not modalities(processor):
        fix = "the tokenizer has to be the one that the model came with"
        what = "the tokenizer has no token that stands for media of this model"
        raise MissingInputError(Problem("E-MEDIA-044", what, "model_name_or_path", type(processor).__name__, fix))
    media = Media(processor, media_family_of(type(processor).__name__), limits, read, origin)
    rate, wanted = limits.audio_sampling_rate, media.sampling_rate
    if wanted is not None and rate != wanted:
        what = f"this model hears {wanted:,} samples a second"
        where, fix = "audio_sampling_rate", f"audio_sampling_rate: {wanted}"
        raise UsageError(Problem("E-MEDIA-045", what, where, str(rate), fix))
    return media


def with_gaps(cls: Any) -> Any:
    """A processor's class, of which parts may be missing: what wants torchvision for videos reads images without."""

    def check(self: Any, name: str, argument: Any) -> Any:
        return None if isinstance(argument, Missing) else cls.check_argument_for_proper_class(self, name, argument)

    return type(cls.__name__, (cls,), {"check_argument_for_proper_class": check})


def _again(config: ModelConfig, limits: MediaLimits) -> Media:
    media = load_media(config, limits, load_tokenizer(config))
    assert media is not None, "it was there before"
    return media


def _reads_only(name: str) -> bool:
    """Whether a folder has no file of a processor: that is told without importing transformers' processors, which takes
    seconds."""
    folder = Path(name)
    return folder.is_dir() and not any((folder / file).is_file() for file in _FILES)


def _settings(name: str, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Class and settings of a model's processor; None for a model without one."""
    import transformers
    from transformers import AutoConfig, FeatureExtractionMixin, ProcessorMixin

    config = AutoConfig.from_pretrained(name, **arguments)
    if type(config) not in transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return None  # also where the text part of a model was saved with the processor of the whole
    settings, _ = ProcessorMixin.get_processor_dict(name, **arguments)
    named = settings.get("processor_class")
    if not set(settings) - {"chat_template"}:
        try:  # an older layout: one file for images or sound, and no file of the processor
            found, _ = FeatureExtractionMixin.get_feature_extractor_dict(name, **arguments)
        except OSError:
            return None
        named = found.get("processor_class")
    known = transformers.PROCESSOR_MAPPING
    if named is None and type(config) not in known:
        return None
    if named is not None and not hasattr(transformers, named):
        fix = "docs/multimodal.md lists models whose processors are in transformers"
        what = f"the processor of this model, {named}, is no class of transformers"
        raise UsageError(Problem("E-MEDIA-047", what, f"model_name_or_path: {name}", fix=fix))
    return getattr(transformers, named) if named else known[type(config)], settings


def _part(name: str, model: str, arguments: dict[str, Any], tokenizer: Any) -> Any:
    from transformers import AutoFeatureExtractor, AutoImageProcessor

    if name == "tokenizer":
        return tokenizer
    if name == "image_processor":  # the same arithmetic, whether torchvision is there or not
        return AutoImageProcessor.from_pretrained(model, backend="pil", **arguments)
    if name == "video_processor":
        if find_spec("torchvision") is None:
            return Missing()
        from transformers import AutoVideoProcessor

        return AutoVideoProcessor.from_pretrained(model, **arguments)
    return AutoFeatureExtractor.from_pretrained(model, **arguments)


def _refuse_dummy(cls: Any, name: str) -> None:
    """Raise MachineError for a class that transformers has only where other packages are."""
    if getattr(cls, "is_dummy", False):
        fix = "pip install 'tunesmith[torchvision]'"
        what = f"the processor of this model, {cls.__name__}, needs torchvision, which is not installed"
        raise MachineError(Problem("E-MEDIA-041", what, where=f"model_name_or_path: {name}", fix=fix))
