"""What the decoders are trained on and judged by: rendered heads, moved photos, sets, clips.

It trains nothing and knows no decoder.
"""
