"""Types of models (`model_type` of config.json) that get padded batches, and why each does. A type that is in none of
the lists here is padded too: it is not known to read flat ones.

tests/contracts/test_flat_batches.py compares the lists with the installed release.
"""

from __future__ import annotations

__all__ = ["PADDED"]

_REASONS = {
    "takes no positions: it counts them over the row": """
        bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart
    """,
    "is an encoder: every token sees the whole row": """
        bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta
        roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xlnet xmod
    """,
    "counts positions and builds masks over the row, beside its attention": "cpmant",
    "sorts the tokens of a row into buckets": "reformer",
    "has layers that share what one of them has picked out of the row": "glm_moe_dsa hy_v4",
    "has no output layer for chosen positions (E-MODEL-008)": """
        gemma4_assistant gemma4_unified_assistant musicgen musicgen_melody prophetnet trocr whisper xlstm
    """,
    "is loaded with its parts for other than text": """
        emu3 fuyu gemma3 gemma3n gemma4 gemma4_unified git got_ocr2 mllama moshi moss_transcribe_diarize phi4_multimodal
    """,
    "groups bytes into patches over the row": "blt",
}
PADDED = {kind: reason for reason, kinds in _REASONS.items() for kind in kinds.split()}
"""`model_type`: the reason, as what such a model does."""
