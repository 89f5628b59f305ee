"""What `--help` prints: options in groups, and examples that can be pasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

MAPPING = "How to map"
PRINTING = "What is printed"
ADDRESSES = "Addresses"
PANELS = ("Options", MAPPING, PRINTING, ADDRESSES)
"""The groups, as they follow each other; what names none is the command's own."""

STORY = (
    "The files stand for your own. examples/resnet50_to_detector.py in the repository builds "
    "resnet50.pth and detector.pth."
)


class Command(TyperCommand):
    """A command whose options stand in groups, and whose help ends with `examples`."""

    examples: tuple[str, ...] = ()
    takes_any_name = False
    """Whether an only argument is a file, also where it begins with `-` and is no option."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Reads the arguments; of one that `takes_any_name`, `-x.pth` as git gives it."""
        known = {name for each in self.get_params(ctx) for name in each.opts}
        if self.takes_any_name and len(args) == 1 and args[0] not in known:
            args = ["--", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """What the usage line has, arguments as everybody writes them: `A`, not `{A}`."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece.strip("{}") for piece in pieces]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the arguments, then each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record is None:
                continue
            is_argument = each.param_type_name == "argument"
            panel = "Arguments" if is_argument else getattr(each, "rich_help_panel", None)
            groups.setdefault(panel or "Options", []).append(record)
        if "Options" not in groups and (shared := groups.pop(PRINTING, None)):
            groups["Options"] = shared
        for name in ("Arguments", *PANELS):
            if name in groups:
                with formatter.section(name):
                    formatter.write_dl(groups[name])

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the examples, a line each, and where their files come from."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{' ' * formatter.current_indent}{example}\n")
                if any("resnet50.pth" in example for example in self.examples):
                    formatter.write_paragraph()
                    formatter.write_text(STORY)
