"""Stress tests: models are asked for a concept in many prompts, and what they draw is ranked by the concept."""
