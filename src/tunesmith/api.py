"""What `import tunesmith` offers: the same functions that the command line calls. Heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tunesmith.config import RunConfig, load_config
from tunesmith.core.log import get_logger
from tunesmith.core.types import Chat, Message

if TYPE_CHECKING:
    from tunesmith.train.results import Result

__all__ = ["Conversation", "Source", "as_config", "chat", "export_model", "train", "with_result"]

Source: TypeAlias = str | Path | Mapping[str, Any] | RunConfig | None


def as_config(source: Source, overrides: Mapping[str, Any], verb: str) -> RunConfig:
    """A config from a file, a mapping, keywords alone, or a config that is loaded already.

    Raises ConfigError with all problems.
    """
    if isinstance(source, RunConfig):
        if not overrides:
            return source
        source = source.to_flat(secrets="keep")
    return load_config(source, overrides, verb=verb)


def with_result(config: RunConfig) -> RunConfig:
    """For chat and export: a training config stands for what that training saved in its output_dir.

    Unchanged where the config names an adapter itself, has no output_dir, or nothing is there yet.
    """
    output_dir = config.train.output_dir if "output_dir" in config.user_keys else None
    if output_dir is None or config.model.adapter_name_or_path:
        return config
    folder = Path(str(output_dir)).expanduser()
    if (folder / "adapter_config.json").is_file():
        change: dict[str, Any] = {"adapter_name_or_path": (str(folder),)}
    elif (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        change = {"model_name_or_path": str(folder)}
    else:
        get_logger().info("nothing is saved in %s yet: this is %s itself", folder, config.model.model_name_or_path)
        return config
    get_logger().info("using what training saved in %s", folder)
    return replace(config, model=replace(config.model, **change))


def train(source: Source = None, **overrides: Any) -> Result:
    """Train as a config says: `tunesmith.train("run.yaml", learning_rate=1e-4)`.

    `source` is a path, a mapping of keys, or a RunConfig; keyword arguments overrule its keys.
    """
    from tunesmith.train.run import train as run

    return run(as_config(source, overrides, "train"))


def export_model(source: Source = None, **overrides: Any) -> Path:
    """Merge an adapter into its base model and save it; returns the folder."""
    from tunesmith.export.merge import export_model as run

    return run(with_result(as_config(source, overrides, "export")))


def chat(source: Source = None, **overrides: Any) -> Conversation:
    """Load a model, with its adapter if the config names one, and begin a conversation.

    with tunesmith.chat("run.yaml") as conversation:
        print(conversation.ask("Who are you?"))
    """
    from tunesmith.engines import make_engine

    config = with_result(as_config(source, overrides, "chat"))
    return Conversation(make_engine(config), system=config.template.default_system)


class Conversation:
    """A chat with memory over an engine. `system` is the system message, None for the template's own."""

    def __init__(self, engine: Any, system: str | None = None) -> None:
        self.engine = engine
        self.system = system
        self.messages: list[Message] = []

    def stream(self, text: str, tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> Generator[str]:
        """Send a user's message and yield the answer in pieces, as the model writes it (thoughts included).

        The exchange is remembered when the answer is complete, or when the caller stops reading (or
        Ctrl-C) with what there is by then; if the engine fails it is not.
        """
        history = self._history(text)
        pieces: list[str] = []
        try:
            for piece in self.engine.stream(history, tools=tools, **sampling):
                pieces.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if pieces:
                self._remember(text, pieces)
            raise
        self._remember(text, pieces)

    def ask(self, text: str, tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> str:
        """Send a user's message and return the answer without its thoughts."""
        for _ in self.stream(text, tools, **sampling):
            pass
        return self.messages[-1].content

    @property
    def thought_marks(self) -> tuple[str, str]:
        """What the model writes before and after a thought."""
        opening, closing = self.engine.renderer.template.thinking
        return opening.strip(), closing.strip()

    def thinks_first(self, text: str) -> bool:
        """Whether the answer to `text` begins inside a thought: some templates open it in the prompt."""
        prompt: str = self.engine.renderer.text(Chat(self._history(text)), open_reply=True)
        return prompt.rstrip().endswith(self.thought_marks[0])

    def clear(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages.clear()

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _history(self, text: str) -> list[Message]:
        system = [Message("system", self.system)] if self.system else []
        return [*system, *self.messages, Message("user", text)]

    def _remember(self, text: str, pieces: Sequence[str]) -> None:
        answer = self.engine.renderer.parse("".join(pieces))
        self.messages += [Message("user", text), answer]
