"""How often verdicts are wrong, and how long they take: thousands of rollouts at once, in numbers alone."""
