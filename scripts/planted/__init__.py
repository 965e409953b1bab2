"""Clips whose evidence is known, and how well explanations find it."""
