"""Tables and pages from results files."""
