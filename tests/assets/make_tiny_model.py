"""Make the project's own tiny Llama, its tokenizer and the little datasets beside it. About four minutes, one thread.

    python tests/assets/make_tiny_model.py            # write tests/assets/tiny-llama and tests/assets/data
    python tests/assets/make_tiny_model.py --check     # make them again and compare with the committed ones

Same script, same seed, same machine type: the same bytes. On another processor the sums round differently, so
`--check` compares the tokenizer and the datasets exactly, and of the model its loss on held-out text.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from tiny_text import chat, known_questions, new_facts, render, story
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SEED = 20240517
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 896
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
STEPS, BATCH, PEAK_RATE, WARMUP = 1300, 32, 4e-3, 100
# Held-out loss of the committed model, nats per token, and how far a re-made one may be from it.
TOLERANCE = 0.03


def texts(seed: int, count: int) -> list[str]:
    """Chats and stories, two to one."""
    rng = random.Random(seed)
    return [render(chat(rng)) if index % 3 else story(rng) + "<|endoftext|>" for index in range(count)]


def make_tokenizer(folder: Path, corpus: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every byte is a token, so that any text can be encoded."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=CONTROL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def batch_of(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Right-padded (ids, mask, labels), each [B, T]."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask, ids.masked_fill(mask == 0, -100)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Nats per token on 256 texts that training has not seen as a whole."""
    rows = tokenizer(texts(SEED + 1, 256))["input_ids"]
    total, tokens = 0.0, 0
    for start in range(0, len(rows), 32):
        ids, mask, labels = batch_of(rows[start : start + 32])
        count = int(mask[:, 1:].sum())
        total += model(input_ids=ids, attention_mask=mask, labels=labels).loss.item() * count
        tokens += count
    return total / tokens


@torch.no_grad()
def right_answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> float:
    """Share of the world's questions that greedy decoding answers word for word."""
    asked = known_questions()
    right = 0
    for question, answer in asked:
        prompt = render([{"role": "user", "content": question}]) + "<|im_start|>assistant\n"
        ids = tokenizer(prompt, return_tensors="pt")
        reply = model.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
        right += tokenizer.decode(reply, skip_special_tokens=True) == answer
    return right / len(asked)


def make_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> float:
    """Train on fresh texts at every step, save, and return the held-out loss."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)

    def rate(step: int) -> float:
        """Linear warm-up, then half a cosine down to zero."""
        if step < WARMUP:
            return (step + 1) / WARMUP
        return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    rows = tokenizer(texts(SEED, STEPS * BATCH // 2))["input_ids"]
    order = random.Random(SEED)
    started = time.monotonic()
    for step in range(STEPS):
        ids, mask, labels = batch_of(order.sample(rows, BATCH))
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 200 == 0 or step == STEPS - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - started:5.0f} s", flush=True)
    model.eval()
    model.save_pretrained(folder)
    loss = held_out_loss(model, tokenizer)
    print(f"held-out loss {loss:.4f}, answers right {right_answers(model, tokenizer):.0%}", flush=True)
    return loss


def alpaca(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"instruction": question, "input": "", "output": answer} for question, answer in pairs]


def openai(pairs: list[tuple[str, str]]) -> list[dict[str, object]]:
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in pairs
    ]


def sharegpt(rng: random.Random, count: int) -> list[dict[str, object]]:
    names = {"user": "human", "assistant": "gpt"}
    rows: list[dict[str, object]] = []
    for _ in range(count):
        turns = chat(rng)
        system = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
        said = [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]
        rows.append({"conversations": said, "system": system})
    return rows


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pretty(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def make_data(folder: Path) -> None:
    """The same small world in every format; `new_*` holds facts that the model does not know."""
    rng = random.Random(SEED + 2)
    known = rng.sample(known_questions(), 40)
    new, held_out = new_facts(held_out=False), new_facts(held_out=True)
    table = io.StringIO()
    writer = csv.DictWriter(table, ("instruction", "input", "output"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(alpaca(known))
    columns = {"messages": "messages"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    message_form = {"formatting": "sharegpt", "columns": columns, "tags": {**tags, "system_tag": "system"}}
    files = {
        "known_alpaca.json": pretty(alpaca(known)),
        "known_alpaca.csv": table.getvalue(),
        "chats_sharegpt.json": pretty(sharegpt(rng, 36)),
        "chats_openai.jsonl": lines([{"messages": chat(rng)} for _ in range(36)]),
        "new_openai.jsonl": lines(openai(new)),
        "new_heldout_openai.jsonl": lines(openai(held_out)),
        "stories.txt": "".join(story(rng) + "\n" for _ in range(40)),
        "stories.jsonl": lines([{"text": story(rng)} for _ in range(40)]),
        "dataset_info.json": pretty(
            {
                "known": {"file_name": "known_alpaca.json"},
                "known_csv": {"file_name": "known_alpaca.csv"},
                "chats": {
                    "file_name": "chats_sharegpt.json",
                    "formatting": "sharegpt",
                    "columns": {"messages": "conversations", "system": "system"},
                },
                "chats_openai": {"file_name": "chats_openai.jsonl", **message_form},
                "new": {"file_name": "new_openai.jsonl", **message_form},
                "new_heldout": {"file_name": "new_heldout_openai.jsonl", **message_form},
                "stories": {"file_name": "stories.jsonl", "columns": {"prompt": "text"}},
            }
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="")


def check(fresh: Path) -> list[str]:
    """What differs between `fresh` and the committed files."""
    wrong = []
    exact = [path.relative_to(fresh) for path in sorted(fresh.rglob("*")) if path.is_file()]
    for name in exact:
        if name.suffix != ".safetensors" and (fresh / name).read_bytes() != (HERE / name).read_bytes():
            wrong.append(f"{name} differs")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(HERE / "tiny-llama")
    committed, remade = (
        held_out_loss(LlamaForCausalLM.from_pretrained(base / "tiny-llama"), tokenizer) for base in (HERE, fresh)
    )
    print(f"held-out loss: committed {committed:.4f}, made again {remade:.4f}")
    if abs(committed - remade) > TOLERANCE:
        wrong.append(f"held-out loss {committed:.4f} against {remade:.4f}")
    return wrong


def make(base: Path) -> None:
    folder = base / "tiny-llama"
    tokenizer = make_tokenizer(folder, texts(SEED, 3000))
    make_data(base / "data")
    make_model(folder, tokenizer)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not arguments.check:
        make(HERE)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        wrong = check(Path(folder))
    print("\n".join(wrong) or "the committed files are what this script makes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
