"""Tells somebody of the alerts in `proxy.policy.alerts`, for those without Prometheus. Off without a URL.

keeper.py    looks every few seconds, and tells what is due
messages.py  what is written: JSON as Alertmanager sends it, or what Slack takes
receiver.py  how it is sent

The URL is a secret, since the path of most webhooks is their only password: logs and errors name the host.
"""
