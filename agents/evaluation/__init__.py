"""What a policy writes, measured: ``metrics`` are pure functions, ``evaluator`` takes them all."""
