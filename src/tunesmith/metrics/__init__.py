"""Pure functions from answers to figures with intervals. No model, no batch, no config in here."""
