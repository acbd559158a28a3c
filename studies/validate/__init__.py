"""Predictions against what others measured, and against our own RTL."""
