"""What is measured: the demo, speed, settings of the RAL loop. README.md holds the results."""
