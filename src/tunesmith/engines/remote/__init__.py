"""A model behind another server, by OpenAI's protocol: as messages (`chat`), or as token ids (`ids`) where that server
takes them. `http` speaks, `failures` says what went wrong, `fields` writes requests."""
