"""The model organism: a small language model, trained here on simulated people, that personalises on a laptop.

Off the shelf, a model small enough for a laptop answers the same option to nearly everything, so nobody can see there
whether a method, or its implementation, personalises at all. The organism is an ordinary causal language model that has
learnt one thing: how answers to this questionnaire hang together. Its people come from a factor model (`respondents/
norms.py`, published figures), so the best that any method can do is known.
"""
