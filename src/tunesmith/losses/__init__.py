"""Pure tensor functions: from logits and targets to sums. No model, no batch, no config in here."""
