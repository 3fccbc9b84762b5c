"""From a load test to a plan: what was measured, what it says, and what to order."""
