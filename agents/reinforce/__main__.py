"""``python -m agents.reinforce``, and what ``torchrun -m`` starts."""

from agents.reinforce.loop import main

if __name__ == "__main__":
    raise SystemExit(main())
