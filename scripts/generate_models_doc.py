"""Writes docs/models.md from the catalog of models.

python scripts/generate_models_doc.py
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

from tunesmith.models.catalog import TAGS, CatalogModel, all_models

TARGET = Path(__file__).parents[1] / "docs" / "models.md"

HEAD = """\
# Models

{total} models of {families} families. Generated from `src/tunesmith/catalog/models/`.

Any model that transformers can load can be trained: write its folder or its repository (`owner/name`) as
`model_name_or_path`. The catalog adds names for well-known ones:

```
tunesmith models list --family Qwen3 --tag instruct
tunesmith models search coder 7b
tunesmith models show Qwen3-4B-Instruct
```

- **Names.** `model_name_or_path: Qwen3-4B-Instruct` stands for the repository, which the run says in one line. Upper
  and lower case are the same; the last part of a repository (`gpt2`) is a name too. A folder of that name wins, and
  what has a slash is taken as it is.
- **Template.** With `template` left out, the model's own chat template is used; if it has none, the one of this table;
  if that is empty, `default`, with a notice.
- **Hubs.** With `USE_MODELSCOPE_HUB=1` or `USE_OPENMIND_HUB=1` a name stands for the repository of that hub, which its
  own Python package downloads. `tunesmith models show` lists the ids of every hub.
- **Sizes and tags** follow from names and templates; `A3B` means that 3B parameters are used per token.

| tag | models |
|---|---|
{tags}

Where names, ids and templates are from (every entry names its source):

{sources}
"""


def page() -> str:
    models = all_models()
    counts = Counter(tag for model in models for tag in model.tags)
    sources = Counter(model.source for model in models)
    head = HEAD.format(
        total=len(models),
        families=len({(model.maker, model.family) for model in models}),
        tags="\n".join(f"| {tag} | {counts[tag]} |" for tag in TAGS),
        sources="\n".join(f"- {source}: {count}" for source, count in sources.most_common()),
    )
    makers = sorted({model.maker for model in models}, key=str.lower)
    return head + "".join(section(maker, [model for model in models if model.maker == maker]) for maker in makers)


def section(maker: str, models: list[CatalogModel]) -> str:
    """A table of one maker: a row for each family and template."""
    lines = [f"\n## {maker}\n", "| family | template | models |", "|---|---|---|"]
    order = list(dict.fromkeys(model.family for model in models))
    ranked = sorted(models, key=lambda model: (order.index(model.family), model.template or ""))
    for (family, template), rows in groupby(ranked, key=lambda model: (model.family, model.template or "")):
        lines.append(f"| {family} | {template and f'`{template}`'} | {', '.join(model.name for model in rows)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET}")
