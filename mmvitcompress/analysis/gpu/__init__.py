"""What only a card can show, in one command: see tools/gpu_report.py."""
