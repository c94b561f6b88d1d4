"""The providers: rows where nothing but data differs, a file where there is code."""
