"""One design in, its times, joules and sites out."""
