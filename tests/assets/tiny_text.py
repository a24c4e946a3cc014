"""The small world that the tiny model speaks about: stories and chats from a seeded grammar, all our own sentences.

The world is closed (eight animals, a few places and things), so that a model of 0.3 million parameters can really
learn it: what an animal eats, where it lives, single-digit sums, counting, and what was said earlier in the chat.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

__all__ = ["ANIMALS", "NEW_ANIMALS", "chat", "known_questions", "new_facts", "render", "story"]

Turns = list[dict[str, str]]

# name: (food, home, colour, sound)
ANIMALS = {
    "fox": ("berries", "den", "red", "yips"),
    "owl": ("mice", "hollow tree", "brown", "hoots"),
    "frog": ("flies", "pond", "green", "croaks"),
    "bear": ("honey", "cave", "black", "growls"),
    "duck": ("weeds", "reeds", "white", "quacks"),
    "cow": ("grass", "barn", "spotted", "moos"),
    "bee": ("nectar", "hive", "yellow", "hums"),
    "mole": ("worms", "tunnel", "grey", "squeaks"),
}
# Animals of no language, for tests that teach something new.
NEW_ANIMALS = {
    "zorrin": ("lanterns", "clock", "silver", "rings"),
    "plim": ("buttons", "teapot", "purple", "whistles"),
    "quandle": ("candles", "boot", "golden", "drums"),
    "vexil": ("maps", "bottle", "blue", "sings"),
}
NAMES = ("Mira", "Tobin", "Lena", "Oskar", "Nia", "Pavel", "Ruth", "Sami")
PLACES = ("river", "hill", "market", "garden", "forest", "bridge")
THINGS = ("kite", "lamp", "drum", "boat", "bell", "hat")
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
MOODS = ("happy", "tired", "curious", "hungry", "brave", "shy")
TIMES = ("morning", "evening", "winter day", "rainy day", "summer night")
SYSTEMS = {
    "long": "You are a helpful assistant.",
    "short": "Answer in one word.",
}
GREETINGS = (
    ("Hello!", "Hello! How can I help you?"),
    ("Good morning.", "Good morning! What would you like to know?"),
    ("Thank you!", "You are welcome."),
    ("Who are you?", "I am a tiny model, and I like stories."),
)


def story(rng: random.Random) -> str:
    """A story of four to six sentences, consistent in itself: the thing found is the thing shown at the end."""
    animal = rng.choice(list(ANIMALS))
    food, home, _, sound = ANIMALS[animal]
    name, friend = rng.sample(NAMES, 2)
    place, thing, colour, mood = rng.choice(PLACES), rng.choice(THINGS), rng.choice(COLOURS), rng.choice(MOODS)
    lines = [
        rng.choice(("Once there was", "Long ago there was", "Here is a story about"))
        + f" {article(mood)} {mood} {animal} named {name}.",
        f"{name} lived in {article(home)} {home} near the {place}.",
        f"One {rng.choice(TIMES)}, {name} found {article(colour)} {colour} {thing}.",
    ]
    if rng.random() < 0.5:
        lines.append(f'"What a fine {thing}!" said {name}.')
    if rng.random() < 0.5:
        lines.append(f"A {animal} {sound} when it is glad, and so did {name}.")
    lines.append(f"{name} gave the {colour} {thing} to {friend}, and {friend} gave {name} some {food}.")
    lines.append(rng.choice(("They were friends from that day on.", "Then they both went home.", "It was a good day.")))
    return " ".join(lines)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def animal_question(rng: random.Random) -> tuple[str, str, str]:
    """(question, full answer, one word)."""
    return rng.choice(animal_questions(rng.choice(list(ANIMALS)), ANIMALS))


def animal_questions(animal: str, table: dict[str, tuple[str, str, str, str]]) -> list[tuple[str, str, str]]:
    food, home, colour, sound = table[animal]
    a = f"{article(animal)} {animal}"
    return [
        (f"What does {a} eat?", f"{a.capitalize()} eats {food}.", food),
        (f"What is the food of {a}?", f"{a.capitalize()} eats {food}.", food),
        (f"Where does {a} live?", f"{a.capitalize()} lives in {article(home)} {home}.", home),
        (f"Where is the home of {a}?", f"{a.capitalize()} lives in {article(home)} {home}.", home),
        (f"What colour is {a}?", f"{a.capitalize()} is {colour}.", colour),
        (f"Tell me the colour of {a}.", f"{a.capitalize()} is {colour}.", colour),
        (f"What does {a} do when it is glad?", f"{a.capitalize()} {sound} when it is glad.", sound),
    ]


def sum_question(rng: random.Random) -> tuple[str, str, str]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    return f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.", str(a + b)


def count_question(rng: random.Random) -> tuple[str, str, str]:
    first = rng.randint(1, 5)
    numbers = [str(number) for number in range(first, first + rng.randint(3, 5))]
    return f"Count from {numbers[0]} to {numbers[-1]}.", ", ".join(numbers) + ".", ", ".join(numbers)


def gift_question(rng: random.Random) -> tuple[str, str, str]:
    """Answerable only from the question itself."""
    name, colour, thing = rng.choice(NAMES), rng.choice(COLOURS), rng.choice(THINGS)
    said = f"{name} has {article(colour)} {colour} {thing}."
    return f"{said} What colour is the {thing}?", f"The {thing} is {colour}.", colour


# Half of what is asked is about animals.
KINDS = (animal_question, animal_question, animal_question, sum_question, count_question, gift_question)


def chat(rng: random.Random) -> Turns:
    """One to three questions and answers; half of the chats open with a system message, which sets the style."""
    style = rng.choice(("none", "long", "short"))
    turns: Turns = [] if style == "none" else [{"role": "system", "content": SYSTEMS[style]}]
    if style != "short" and rng.random() < 0.2:
        turns += pair(*rng.choice(GREETINGS))
    for _ in range(rng.choice((1, 1, 2))):
        question, full, word = rng.choice(KINDS)(rng)
        turns += pair(question, word if style == "short" else full)
    return turns


def pair(question: str, answer: str) -> Turns:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def render(turns: Turns) -> str:
    """ChatML, as the model's own chat template writes it."""
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns)


def known_questions() -> list[tuple[str, str]]:
    """What the trained model must answer: all animal questions with their full answers."""
    return [(question, full) for animal in ANIMALS for question, full, _ in animal_questions(animal, ANIMALS)]


def new_facts(held_out: bool) -> list[tuple[str, str]]:
    """Questions and answers about the new animals. The held-out ones ask for the same facts in other words: every
    second phrasing of food, home and colour."""
    chosen: Sequence[int] = (1, 3, 5) if held_out else (0, 2, 4, 6)
    return [
        (question, full)
        for animal in NEW_ANIMALS
        for index, (question, full, _) in enumerate(animal_questions(animal, NEW_ANIMALS))
        if index in chosen
    ]
