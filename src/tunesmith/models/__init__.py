"""From a name or folder to a model and its tokenizer; facts about model types. No data, no training."""
