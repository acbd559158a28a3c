"""Makes pictures, trains the two decoders on them and measures the result.

Nothing here is needed to simulate, search or emit; it imports torch and our workloads only.
"""
