"""What users type, in; what rooms give back, shown. No logic of its own."""
