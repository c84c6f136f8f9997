"""How deeply source is nested, asked before LibCST sees it.

LibCST's parser recurses: on 3,000 nested brackets it ends the process, and long chains (`a.b().c()...`) cost it
more than the square of their length: 300 levels take at worst 0.7 seconds, 1,000 take 11.
"""

from __future__ import annotations

import re

MAX_LEVELS = 300
"""Levels of syntax in one statement. A chained call has two, an element of an `elif` chain half of one."""

MAX_BRACKETS = 200
"""Nested brackets; CPython's own tokenizer ends there."""

TOO_DEEP = "is nested too deeply to be analysed"

# Strings and comments as one token, whatever is in them; a nested quote of a new f-string makes two of one.
TOKEN = re.compile(
    r'''
      (?P<string>"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*(?:"""|\Z)
        | \'{3}[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*(?:\'{3}|\Z)
        | "[^"\\\n]*(?:\\.[^"\\\n]*)*"?
        | '[^'\\\n]*(?:\\.[^'\\\n]*)*'?
        | \#[^\n]*
        | \\\n)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<comma>,)
    | (?P<newline>\n)
    | (?P<level>[-+*/%@&|^~<>.=:]+ | \b(?:not|and|or|if|else|lambda|await|in|is|for)\b)
    ''',
    re.VERBOSE | re.DOTALL,
)


def too_deep(text: str) -> int | None:
    """The line from which text is nested too deeply, None if it isn't. An estimate that errs towards yes.

    For text that `ast` can't read, so that nothing better is known of it.
    """
    levels = [0]  # of what is open, outermost first: the operators since the last comma
    lambdas = 0
    line = 1
    for token in TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "string":
            line += token.group().count("\n")
        elif kind == "open":
            levels.append(0)
            if len(levels) > MAX_BRACKETS:
                return line
        elif kind == "close":
            if len(levels) > 1:
                levels.pop()
            levels[-1] += 2
        elif kind == "comma":
            levels[-1] = 0
        elif kind == "newline":
            line += 1
            if len(levels) == 1:
                levels[0] = lambdas = 0
        else:
            # Each sign of "---x" is a level, but "==" is one.
            levels[-1] += len(token.group()) if token.group()[0] in "-+~" else 1
            lambdas += token.group() == "lambda"
        if levels[-1] > MAX_LEVELS or lambdas > MAX_LEVELS:
            return line
    return None
