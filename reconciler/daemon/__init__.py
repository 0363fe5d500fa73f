"""The one place that wires stores, drivers and loops together."""
