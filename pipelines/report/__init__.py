"""The page of a dataset's results: a pure function of the files, with no clock or network.

| file | what |
| --- | --- |
| `loading.py` | the files of a run tree, read so that a missing or broken one becomes a problem said on the page |
| `metrics.py` | metrics as the leaderboard shows them; marks of the best |
| `page.py` | what the page shows: verdicts, leaderboard, families, lineage |
| `domains/` | by kind of data: how a model is asked for samples; rows, histograms, associations of a table |
| `charts.py` | geometry of the drawings; `charts.html` draws them as SVG |
| `plots.py` | one picture per curve and family, `plot.svg`, for `dvc plots` |
| `numbers.py` | numbers as people read them |
| `pictures.py` | pictures that together fit into a page |
| `explorer.py` | decoded codes and samples over training, for the sliders |
| `page.html`, `page.css` | the page; all of it can be read without script |
| `page.js` | sorts tables, opens what a link leads to, shows what a slider asks for |
"""
