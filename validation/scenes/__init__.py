"""Images of a known field on which water may be taken for fat."""
