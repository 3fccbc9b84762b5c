"""What tools said of themselves when they were first seen."""
