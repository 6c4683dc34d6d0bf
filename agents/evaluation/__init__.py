"""What a policy writes, measured."""
