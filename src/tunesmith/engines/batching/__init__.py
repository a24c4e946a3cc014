"""What an engine of our own is made of: whose turn it is, where keys and values lie, one step of the model, how a token
is chosen, and which text is final. Not here: how a model is loaded, and what other engines do."""
