"""The readout: one person's answers predicted in closed form from what the frozen model makes of the statements."""
