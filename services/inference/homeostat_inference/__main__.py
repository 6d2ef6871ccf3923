"""Starts the service."""

from homeostat_inference.main import main

main()
