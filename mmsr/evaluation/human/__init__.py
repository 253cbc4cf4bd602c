"""Human evaluation: blinded rating sheets for a browser, and scores of the ratings.

runs, manifest ─► sheet.make_sheets ─► sheets/*.html, key.json
saved ratings, key.json ─► ratings.read_ratings ─► scores.score ─► table, JSON, report
"""
