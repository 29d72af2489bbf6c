"""Nipype workflows of the participant and the group level."""
