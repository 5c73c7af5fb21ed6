"""SmolLM2 taught to answer this questionnaire as a person would of whom it is told something.

A language model of a laptop's size answers C to nearly everything, whatever it is told about a person. Taught on
simulated people alone (`respondents/norms.py`, published figures), it uses lists of answers and portraits, and goes on
speaking English. It is a test bed, as the organism is, with words: what it shows is whether a method works where there
is something to be used, never how well a method works on a model that was not taught its form.

`lessons` writes texts about a person as the harness does, `exercises` draws people and the chances that are learnt,
`english` keeps what the model would have said, `reader` is the model with its adapter, and `training` teaches it.
"""
