"""The rules: one file each, found by walking this package.

A check is a function registered under its rule with `@rule(...)`. The registry knows each rule's code, name
and severity; everything else that is said of a rule stands in its page under `rules/`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from session_lint.findings import Finding, Severity

if TYPE_CHECKING:
    from session_lint.checks.context import Context

Check = Callable[["Context"], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule's identity: the code is fixed for ever, the name names the bad pattern."""

    code: str
    name: str
    severity: Severity
    preview: bool
    check: Check


_RULES: dict[str, Rule] = {}


def rule(code: str, name: str, severity: Severity, *, preview: bool = False) -> Callable[[Check], Check]:
    """Register the decorated function as the check of a rule."""

    def register(check: Check) -> Check:
        if code in _RULES:
            raise ValueError(f"two checks for {code}: {_RULES[code].name} and {name}")
        _RULES[code] = Rule(code, name, severity, preview, check)
        return check

    return register


def all_rules() -> dict[str, Rule]:
    """Every rule by code, in the order of codes."""
    for module in _modules():
        importlib.import_module(module)
    return dict(sorted(_RULES.items()))


def _modules() -> Iterator[str]:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        yield module.name
