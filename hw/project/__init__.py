"""The emitted project: files, scripts, manifest."""
