"""Before training with a named template: does it write what the model's own would, on rows of this run?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Chat

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.render import Renderer

__all__ = ["check_template"]

_ROWS = 32  # of each dataset


def check_template(config: RunConfig, tokenizer: Any, renderer: Renderer) -> None:
    """Compare texts on a sample of the training (or evaluation) rows. A difference is a warning with the first
    differing text, or a DataError with `template_check: strict`."""
    named = config.template.template not in (None, "auto")
    if not named or not tokenizer.chat_template or config.template.template_check == "off":
        return
    from tunesmith.data import read_examples
    from tunesmith.render import make_renderer
    from tunesmith.render.checking import check_texts

    own = make_renderer(replace(config.template, template=None), tokenizer, media=renderer.media)
    sample = replace(config.data, max_samples=min(_ROWS, config.data.max_samples or _ROWS))
    which = "train" if config.data.dataset else "eval"
    examples = read_examples(sample, stage=config.objective.stage, which=which)
    chats = {str(example.origin): example for example in examples if isinstance(example, Chat)}
    checked = check_texts(renderer, own, chats)
    if checked.ok:
        return
    finding = checked.findings[0]
    ours, theirs = finding.parts()
    problem = Problem(
        "E-TRAIN-016",
        f'template "{renderer.name}" differs from the model\'s own on {len(checked.findings)} of {checked.cases} rows',
        where=finding.case,
        got=f"{_short(ours)}; the model's own: {_short(theirs)}" if finding.theirs is not None else finding.what,
        fix="leave template out to train with the model's own (template_check: off accepts the difference)",
    )
    if config.template.template_check == "strict":
        raise DataError(problem)
    get_logger().warning("%s", str(problem).removeprefix("error"))


def _short(text: str) -> str:
    return repr(text if len(text) <= 24 else text[:21] + "...")
