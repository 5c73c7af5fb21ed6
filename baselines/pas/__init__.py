"""Personality Activation Search (paper, section 4): shift a few attention heads toward one person's answers."""
