"""Rule codes as people write them, and what they probably meant."""

from __future__ import annotations

from collections.abc import Collection

# The findings that the engine itself makes; they are codes like any other.
ENGINE_CODES = ("SES901", "SES902")


def known_codes() -> tuple[str, ...]:
    """Every rule's code, in order. Imports the checks, so it is asked only when a code must be judged."""
    from session_lint.checks import all_rules

    return tuple(sorted({*all_rules(), *ENGINE_CODES}))


def nearest(word: str, possible: Collection[str], likeness: float = 0.6) -> str | None:
    """The word that was probably meant."""
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in possible}
    matches = get_close_matches(word.casefold(), folded, n=1, cutoff=likeness)
    return folded[matches[0]] if matches else None


def unknown_code(code: str) -> str:
    """The message for a rule code that doesn't exist."""
    meant = meant_code(code, known_codes())
    return f'unknown rule "{code}"' + (f'; did you mean "{meant}"?' if meant else "")


def meant_code(code: str, known: Collection[str]) -> str | None:
    """The code or prefix that was probably meant, also by somebody who wrote a rule's name."""
    from session_lint.checks import all_rules

    folded = code.strip().upper()
    if folded == "ALL" or any(candidate.startswith(folded) for candidate in known):
        return folded
    by_name = {rule.name: rule.code for rule in all_rules().values()}
    name = nearest(code, by_name)
    return by_name[name] if name else nearest_code(code, known) or nearest(code, known, 0.5)


def nearest_code(code: str, known: Collection[str]) -> str | None:
    """Of codes, the one with the most digits in their places: all look alike to difflib."""
    if len(code) != len("SES101") or code[:3].upper() != "SES":
        return None
    return min(known, key=lambda candidate: -sum(map(str.__eq__, candidate[3:], code[3:])))
