"""Shared by SES102, SES107 and SES108: what SQLAlchemy 1 does by itself, and 2 does not."""

from __future__ import annotations

from session_lint import ir
from session_lint.checks.context import Context
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import SessionState
from session_lint.flow.values import Path
from session_lint.ir_queries import own_expressions, path_of

_KEYWORDS = {None, "*", "**", "statement", "parameters", "execution_options"}
"""What execute() of a connection takes in SQLAlchemy 2; before, any keyword was a parameter of the statement."""


def commits_by_itself(context: Context, flow: FunctionFlow, identity: Path) -> bool:
    """Whether a connection is one of SQLAlchemy 1, which commits each statement, and begins nothing by itself."""
    is_old = context.project.versions.is_sqlalchemy_1(context.module.path)
    return is_old or _is_written_for_older(flow, identity)


def may_begin_nothing(context: Context) -> bool:
    """Whether sessions of the project may begin nothing by themselves: SQLAlchemy 1 makes such with autocommit=True."""
    is_old = context.project.versions.is_sqlalchemy_1(context.module.path)
    return is_old and context.project.switches_on("autocommit")


def rolls_back_by_itself(context: Context, flow: FunctionFlow, identity: Path, session: SessionState) -> bool:
    """Whether it also takes back what has failed: a connection that the function opened, and no begin() before."""
    info, failed = flow.sessions[identity], session.witness.failed
    if info.type.role != "connection" or info.origin != result.LOCAL or session.begun or failed is None:
        return False
    begins = [event.place for event in flow.events if event.kind == result.BEGUN and event.identity == identity]
    return all([place > failed.place for place in begins]) and commits_by_itself(context, flow, identity)


def _is_written_for_older(flow: FunctionFlow, identity: Path) -> bool:
    """`conn.execute("SELECT 1")`, `conn.execute(statement, key=1)`: SQLAlchemy 2 refuses both."""
    execute = (*flow.sessions[identity].name.split("."), "execute")
    for statement in ir.statements(flow.reference.function.body):
        for part in own_expressions(statement):
            if isinstance(part, ir.Call) and path_of(part.function) == execute and part.arguments:
                text = part.arguments[0].value
                if isinstance(text, ir.Constant) or (isinstance(text, ir.Opaque) and text.is_text):
                    return True
                if {argument.name for argument in part.arguments} - _KEYWORDS:
                    return True
    return False
