"""What one sees of a run: a table for the terminal, figures, an HTML page, an ArviZ tree.

Everything here is loaded on use, because matplotlib, jinja2 and arviz-base come with extras:
`motes.report.html.report`, `motes.report.plots.plot_*`, `motes.report.arviz.to_arviz`, `motes.report.table.table`.
"""
