"""Typed rules written in the words of the tool that loads them: one module a dialect, the only place that spells it."""
