"""The command line: `fallback-plugin VERB`, one file per verb."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    # Started with every OpenCode: what only people need would cost it memory and time.
    if sys.argv[1:] == ["bridge"]:
        from fallback_plugin.cli.bridge import bridge_command  # noqa: PLC0415

        bridge_command()

    # Verbs bring their libraries; naming the package must not.
    import typer  # noqa: PLC0415

    from fallback_plugin.cli.attach import attach_command  # noqa: PLC0415
    from fallback_plugin.cli.check import check_command  # noqa: PLC0415
    from fallback_plugin.cli.classify import classify_command  # noqa: PLC0415
    from fallback_plugin.cli.demo import demo_command  # noqa: PLC0415
    from fallback_plugin.cli.explain import explain_command  # noqa: PLC0415

    app = typer.Typer(
        name="fallback-plugin",
        help="Carry an agent's turn on to the next model when its provider fails.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("attach")(attach_command)
    app.command("check")(check_command)
    app.command("classify")(classify_command)
    app.command("demo")(demo_command)
    app.command("explain")(explain_command)
    app()
