"""What `tools/campaign.py` feeds to plasm."""
