"""An HTTP server that speaks OpenAI's protocol, over any engine.

`fields` and `request` read what clients send; `messages` makes chats of it; `responses` writes what they get; `chat`,
`completions`, `embeddings`, `scores`, `models` and `vocabulary` are the endpoints; `gate` is what every request passes;
`app` joins them and `server` listens. Nothing here knows how text is generated (`engines/`) or how chats become tokens
(`render/`).
"""
