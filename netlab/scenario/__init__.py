"""Scenarios: read a file, bring a lab up, run its steps one by one, judge, report. Knows labs only through their client."""
