"""HTML reports of subjects and cohorts, and the text on methods."""
