"""Names of the files that callbacks write into the output folder."""

from __future__ import annotations

__all__ = ["ANOMALIES_NAME", "GENERATIONS_NAME", "LOG_NAME", "PLOT_NAME"]

ANOMALIES_NAME = "anomalies.jsonl"
GENERATIONS_NAME = "generations.jsonl"
LOG_NAME = "trainer_log.jsonl"
PLOT_NAME = "training_loss.png"
