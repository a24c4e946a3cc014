"""A run: what is derived before it (plan), the one Trainer, what is written after it. Nothing heavy at import."""
