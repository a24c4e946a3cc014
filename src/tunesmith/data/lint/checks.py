"""All checks. A new one is a function in a file of its group, and a line here."""

from __future__ import annotations

from tunesmith.data.lint import content, duplicates, lengths, mapping, shape
from tunesmith.data.lint.base import RowCheck, SetCheck

__all__ = ["ROW_CHECKS", "SET_CHECKS"]

_MEND = "mend these rows, or leave them out"

# code, severity, what is wrong, what to do, the function
ROW_CHECKS: tuple[RowCheck, ...] = (
    RowCheck("E-LINT-001", "error", "an answer is empty", _MEND, shape.empty_answer),
    RowCheck("E-LINT-002", "error", "messages in an impossible order", _MEND, shape.roles_out_of_order),
    RowCheck(
        "E-LINT-003",
        "warning",
        "nothing of the row is trained",
        "look at weights of messages, mask_history and the template: tunesmith data preview",
        shape.nothing_trained,
        needs_tokens=True,
    ),
    RowCheck("E-LINT-004", "error", "chosen and rejected are the same", _MEND, shape.identical_pair),
    RowCheck(
        "E-LINT-005",
        "error",
        "the two answers of a pair belong to different prompts",
        "pair answers to one prompt",
        shape.prompts_of_pair_differ,
    ),
    RowCheck(
        "E-LINT-016",
        "warning",
        "the answer repeats the prompt",
        "an answer column that holds the whole text should hold the answer alone",
        mapping.answer_repeats_prompt,
        note_below=0.05,
    ),
    RowCheck(
        "E-LINT-018",
        "warning",
        "a key or token of a service stands in the text",
        "take it out of the rows, and out of service: a model may repeat what it was trained on",
        content.secrets,
    ),
    RowCheck(
        "E-LINT-019",
        "note",
        "an e-mail address stands in the text",
        "take out addresses of people: a model may repeat what it was trained on",
        content.addresses,
    ),
    RowCheck(
        "E-LINT-020",
        "warning",
        "control characters stand in the text",
        "take them out; they come from broken exports, terminals and binary files",
        content.control_characters,
    ),
    RowCheck(
        "E-LINT-021",
        "note",
        "characters are not composed (not Unicode NFC)",
        'compose them: unicodedata.normalize("NFC", text); most tokenizers know the composed ones better',
        content.not_composed,
    ),
    RowCheck(
        "E-LINT-022",
        "warning",
        "characters were lost in a wrong conversion",
        "make the rows again from their source, read as UTF-8",
        content.replacement_characters,
    ),
    RowCheck(
        "E-LINT-023",
        "warning",
        "control tokens of the model stand in the text",
        "they stay text and steer nothing; take them out, or write trusted_markup: true if they are meant",
        content.control_tokens,
        needs_tokens=True,
    ),
)

SET_CHECKS: tuple[SetCheck, ...] = (
    SetCheck("feedback is one-sided", shape.one_sided_feedback),
    SetCheck("exact duplicates", duplicates.exact_duplicates),
    SetCheck("near-duplicates", duplicates.near_duplicates),
    SetCheck("training rows in the evaluation data", duplicates.leaked_rows),
    SetCheck("training prompts in the evaluation data", duplicates.leaked_prompts),
    SetCheck("rows longer than cutoff_len", lengths.longer_than_cutoff, needs_tokens=True),
    SetCheck("how much is trained", lengths.little_is_trained, needs_tokens=True),
    SetCheck("prompts that are all equal", mapping.prompts_all_equal),
    SetCheck("answers that are all equal", mapping.answers_all_equal),
    SetCheck("swapped columns", mapping.answers_look_like_prompts),
)
