"""Alerts to other people's servers."""
