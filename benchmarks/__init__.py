"""What was measured: the demo, its metrics and its plots."""
