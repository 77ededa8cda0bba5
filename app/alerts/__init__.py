"""Alerts: declared rules over the rounds of a run, which fire, clear by themselves, and are told to whoever listens."""
