"""The model organism: a small language model, trained here on simulated people, that personalises on a laptop.

An ordinary causal language model that has learnt one thing: how answers to this questionnaire hang together. Its people
come from a factor model, so the best that any method can do is known (docs/organism.md).
"""
