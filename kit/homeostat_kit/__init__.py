"""What at least three services share and no domain word describes."""
