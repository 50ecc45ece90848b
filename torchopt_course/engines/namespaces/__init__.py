"""The words of a rule, and what they are in each engine's language."""
