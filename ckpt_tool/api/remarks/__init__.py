"""What is said beside an answer: what explains it, and what it leaves out."""
