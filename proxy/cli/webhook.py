"""`pullthrough webhook test`: whether alerts arrive, and what they look like there."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from proxy.cli.options import Commands, add_command, load_config
from proxy.config import ConfigError, check_files

if TYPE_CHECKING:
    from proxy.config import WebhookOptions


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "webhook", run, "Send an alert that is a test to the webhook, and that it is over.")
    parser.add_argument("action", choices=["test"], metavar="test", help="try it now; the cache need not be running")


def run(arguments: argparse.Namespace) -> int:
    """Send both, each once."""
    import asyncio

    from proxy.webhook.receiver import Undelivered

    config = load_config(arguments)
    check_files(config)
    if not config.webhook.enabled:
        raise ConfigError(
            "no webhook is configured; expected webhook.url, webhook.url_file or PULLTHROUGH_WEBHOOK__URL"
        )
    try:
        asyncio.run(_send(config.webhook))
    except Undelivered as error:
        print(f"pullthrough: the test did not arrive: {error}", file=sys.stderr)
        return 1
    return 0


async def _send(options: WebhookOptions) -> None:
    """Raises Undelivered."""
    import socket
    from dataclasses import replace

    from proxy.clock import SystemClock
    from proxy.policy.alerts import Alert
    from proxy.webhook.messages import body
    from proxy.webhook.receiver import send

    clock = SystemClock()
    alert = Alert(
        "PullthroughTest", "info", (), "this is a test: nothing is wrong", "Nothing is to be done.", clock.time()
    )
    for what, each in (("firing", alert), ("resolved", replace(alert, ended_at=clock.time()))):
        said = await send(options, body(options.format, [each], socket.gethostname()), clock)
        print(f"sent as {options.format}, {what}: {said}", flush=True)
