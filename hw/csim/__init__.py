"""The emitted C++ as threads on this machine."""
