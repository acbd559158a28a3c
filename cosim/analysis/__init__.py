"""What can be said of a program and its run: bounds, timelines, traces, an interpreter."""
