"""Fabric sites and paths of the RTL, synthesized and fitted."""
