"""SmolLM2 taught to answer this questionnaire as a person would of whom it is told something.

Taught on simulated people alone, it uses lists of answers and portraits, and goes on speaking English: a test bed, as
the organism is, with words (docs/organism.md).

`lessons` writes texts about a person as the harness does, `exercises` draws people and the chances that are learnt,
`english` keeps what the model would have said, `reader` is the model with its adapter, and `training` teaches it.
"""
