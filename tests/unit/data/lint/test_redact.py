"""Keys are found by their form, and shown without giving them away. None of these is real."""

from __future__ import annotations

import pytest

from tunesmith.data.lint.redact import find_addresses, find_secrets, redact, secret_ranges
from tunesmith.data.lint.texts import excerpt

LONG = "aB3" * 20
SECRETS = {
    "Hugging Face token": "hf_" + LONG[:34],
    "OpenAI or Anthropic key": "sk-proj-" + LONG[:40],
    "AWS access key": "AKIA" + "Q7" * 8,
    "GitHub token": "ghp_" + LONG[:36],
    "Google API key": "AIza" + LONG[:35],
    "Slack token": "xoxb-" + "1" * 12,
    "Stripe key": "sk_live_" + LONG[:24],
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMII" + LONG + "\n-----END RSA PRIVATE KEY-----",
    "JSON web token": f"eyJ{LONG[:20]}.eyJ{LONG[:20]}.{LONG[:20]}",
    "Weights & Biases key": "wandb login " + "0123456789abcdef" * 2 + "01234567",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_key_is_found_and_hidden(kind: str) -> None:
    text = f"Use this: {SECRETS[kind]} and be happy"
    (found,) = find_secrets(text)
    assert found.kind == kind
    hidden = redact(text)
    assert hidden.startswith("Use this: ")
    assert hidden.endswith("*** and be happy")
    assert SECRETS[kind][-8:] not in hidden
    assert SECRETS[kind][:12] not in hidden.removeprefix("Use this: wandb")
    assert secret_ranges(text) == [(found.start, found.end)]


@pytest.mark.parametrize(
    "text",
    [
        "hf_ is a prefix",
        "risk-free-and-simple-to-understand",
        "AKIA",
        "a commit 0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_merely_looks_like_a_key_is_none(text: str) -> None:
    assert list(find_secrets(text)) == []
    assert redact(text) == text


def test_a_private_key_that_is_cut_off_is_hidden_to_its_end() -> None:
    assert redact("x -----BEGIN PRIVATE KEY-----\nMIIabc") == "x ---***"


def test_addresses_are_found_but_for_those_of_examples() -> None:
    text = "write to jane.doe@university.edu or joe@example.com"
    (found,) = find_addresses(text)
    assert text[found.start : found.end] == "jane.doe@university.edu"
    assert redact(text) == "write to j*** or joe@example.com"


def test_an_excerpt_shows_the_place_on_one_line_without_secrets() -> None:
    text = "word " * 60 + "\n\x1b[31m" + SECRETS["Hugging Face token"] + " tail " * 60
    shown = excerpt(text, text.index("hf_"))
    assert "hf_***" in shown
    assert SECRETS["Hugging Face token"][:10] not in shown
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert shown.startswith("...")
    assert shown.endswith("...")
    assert len(shown) <= 100
