"""Human evaluation: blinded sheets that a rater fills in with a browser, and what the ratings say.

runs, manifest ─► sheet.make_sheets ─► sheets/*.html, key.json
sheets' saved answers, key.json ─► ratings.read_ratings ─► scores.score ─► table, JSON, picture
"""
