"""What values that print as a command does show in a notebook."""

from __future__ import annotations


class PrintedInNotebooks:
    """In a notebook a value shows what `print()` does, with its lines as they are."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.folding import text_html

        return text_html(str(self))
