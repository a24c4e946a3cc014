"""Sample values for every key, for tests that go over the whole table of keys."""

from __future__ import annotations

from typing import Any

from tunesmith.config.keys import Key

# Values that the rules demand where the general choice would not do.
SPECIAL: dict[str, Any] = {
    "audio_sampling_rate": 24_000,
    "interleave_probs": (0.25, 0.75),
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
    "activation_checkpointing_kwargs": {"use_reentrant": False},
}


def sample(key: Key) -> Any:
    """A value that the key may have and that is not its default, where there is another that works."""
    if key.name in SPECIAL:
        return SPECIAL[key.name]
    if key.choices:
        working = [item for item in key.choices if item not in key.mark.later_values]
        choice = next((item for item in working if item != key.default), key.default)
        return [choice] if key.types == ("list",) else choice
    if "bool" in key.types:
        return not key.default
    if "float" in key.types or "int" in key.types:
        return _number(key)
    if "names" in key.types:
        return ("first", "second")
    if "numbers" in key.types:
        return (1.5, 2.5)
    if "str" in key.types:
        return "some text"
    return ["first", "second"] if "list" in key.types else {"inner": 1}


def _number(key: Key) -> float:
    mark = key.mark
    options = (0.25, 0.5, 0, 2.5) if "float" in key.types else (3, 4, 1, 0)
    for number in options:
        fits = (
            (mark.above is None or number > mark.above)
            and (mark.least is None or number >= mark.least)
            and (mark.below is None or number < mark.below)
            and (mark.most is None or number <= mark.most)
        )
        if fits and number != key.default:
            return number
    raise AssertionError(f"no sample for {key.name}")


def written(value: Any) -> str:
    """The value as a person types it behind `key=`."""
    import json

    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
