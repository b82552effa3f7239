"""What `tools/fuzz.py` feeds to plasm."""
