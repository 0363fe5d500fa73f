"""Turns the wheel: every pass reads the world anew, plans, executes, and looks again."""
