"""What banger talks about: frozen dataclasses and enums. No I/O, no clock, no randomness."""
