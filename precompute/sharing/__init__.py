"""Atlases that somebody else has: `publish` puts one where others reach it, `fetch` brings one here, verified."""
