"""What a flow is: its input, its phases, its names and bounds, declared once at import time. Knows no database."""
