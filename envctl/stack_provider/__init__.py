"""The Pulumi provider `envctl`: environments, nodes and provisions as resources.

It runs in envctl's own process, where the engine attaches to it, and as the plug-in `pulumi-resource-envctl`, so that a plain
`pulumi` can refresh and destroy.  Both believe the living environment, not the state: a difference is a digest that changed
*or* a node that is not ready, so every update repairs what died without a refresh.
"""

from __future__ import annotations


def main() -> None:
    """The plug-in `pulumi-resource-envctl`."""
    from envctl.stack_provider.server import main as serve_until_ended

    serve_until_ended()
