"""What runs in the peers' own environments; installed by `benchmarks.monitor.install`."""
