"""Measurements that the README, the documentation or the app quote: each prints one JSON document with `--json`."""
