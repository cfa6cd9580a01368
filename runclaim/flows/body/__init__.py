"""What the body of a phase is handed and how it writes down what it wants. Knows no database."""
