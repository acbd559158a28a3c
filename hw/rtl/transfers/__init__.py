"""Masters: bursts, beats, and the places of beats in buffers. They know no engine."""
