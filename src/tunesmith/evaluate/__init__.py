"""What a trained model says: predictions over a dataset. Uses engines, never the training loop's internals."""
