"""Tool dialects: how each family of models is told about tools, writes its calls, and is read back.

What belongs here: one file per dialect with its writer and its parser, and what several share (`json_forms`,
`markup_forms`, `literals`, `signatures`, `schemas`). What does not: where in a chat these texts stand and what wraps a
tool's result; that is the template's.

Every form was read off a published template; `docs/tools.md` names it. A writer and its parser are inverse to each
other, or the writer refuses and says what the form cannot carry.
"""

from __future__ import annotations

from functools import cache

from tunesmith.core.registry import Registry
from tunesmith.render.tools.base import Dialect, DialectRefusal, Parsed, Piece

__all__ = ["DIALECTS", "Dialect", "DialectRefusal", "Parsed", "Piece", "get_dialect"]

DIALECTS: Registry[type[Dialect]] = Registry("tool form", code="E-RENDER-020")
_HERE = "tunesmith.render.tools"
DIALECTS.add("default", f"{_HERE}.default:Default")
DIALECTS.add("apriel", f"{_HERE}.apriel:Apriel")
DIALECTS.add("command_r7b", f"{_HERE}.command_r7b:CommandR7B")
DIALECTS.add("command_r_plus", f"{_HERE}.command_r_plus:CommandRPlus")
DIALECTS.add("deepseek_v3", f"{_HERE}.deepseek_v3:DeepSeekV3")
DIALECTS.add("deepseek_v3_1", f"{_HERE}.deepseek_v3_1:DeepSeekV31")
DIALECTS.add("deepseek_v3_2", f"{_HERE}.deepseek_v3_2:DeepSeekV32")
DIALECTS.add("deepseek_v4", f"{_HERE}.deepseek_v4:DeepSeekV4")
DIALECTS.add("firefunction", f"{_HERE}.firefunction:FireFunction")
DIALECTS.add("functionary", f"{_HERE}.functionary:Functionary")
DIALECTS.add("gemma4", f"{_HERE}.gemma4:Gemma4")
DIALECTS.add("gemma4_canonical", f"{_HERE}.gemma4_canonical:Gemma4Canonical")
DIALECTS.add("gigachat", f"{_HERE}.gigachat:GigaChat")
DIALECTS.add("glm4", f"{_HERE}.glm4:Glm4")
DIALECTS.add("glm4_7", f"{_HERE}.glm4_7:Glm47")
DIALECTS.add("glm4_moe", f"{_HERE}.glm4_moe:Glm4Moe")
DIALECTS.add("granite", f"{_HERE}.granite:Granite")
DIALECTS.add("granite4", f"{_HERE}.granite4:Granite4")
DIALECTS.add("harmony", f"{_HERE}.harmony:Harmony")
DIALECTS.add("hermes", f"{_HERE}.hermes:Hermes")
DIALECTS.add("kimi_k2", f"{_HERE}.kimi_k2:KimiK2")
DIALECTS.add("laguna", f"{_HERE}.laguna:Laguna")
DIALECTS.add("lfm2", f"{_HERE}.lfm2:Lfm2")
DIALECTS.add("lfm2_5", f"{_HERE}.lfm2_5:Lfm25")
DIALECTS.add("ling", f"{_HERE}.ling:Ling")
DIALECTS.add("llama3", f"{_HERE}.llama3:Llama3")
DIALECTS.add("llama3_json", f"{_HERE}.llama3_json:Llama3Json")
DIALECTS.add("llama3_pythonic", f"{_HERE}.llama3_pythonic:Llama3Pythonic")
DIALECTS.add("minicpm5", f"{_HERE}.minicpm5:MiniCpm5")
DIALECTS.add("minimax1", f"{_HERE}.minimax1:MiniMax1")
DIALECTS.add("minimax2", f"{_HERE}.minimax2:MiniMax2")
DIALECTS.add("mistral", f"{_HERE}.mistral:Mistral")
DIALECTS.add("mistral_v3", f"{_HERE}.mistral_v3:MistralV3")
DIALECTS.add("mistral_v7", f"{_HERE}.mistral_v7:MistralV7")
DIALECTS.add("mistral_v11", f"{_HERE}.mistral_v11:MistralV11")
DIALECTS.add("mistral_v13", f"{_HERE}.mistral_v13:MistralV13")
DIALECTS.add("nemotron", f"{_HERE}.nemotron:Nemotron")
DIALECTS.add("qwen", f"{_HERE}.qwen:Qwen")
DIALECTS.add("qwen3_5", f"{_HERE}.qwen3_5:Qwen35")
DIALECTS.add("qwen3_6", f"{_HERE}.qwen3_6:Qwen36")
DIALECTS.add("qwen3_coder", f"{_HERE}.qwen3_coder:Qwen3Coder")
DIALECTS.add("seed_oss", f"{_HERE}.seed_oss:SeedOss")


@cache
def get_dialect(name: str) -> Dialect:
    """The dialect of this name. Raises UsageError with suggestions if there is none."""
    return DIALECTS.get(name)()
