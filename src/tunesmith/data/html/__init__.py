"""Pages about data, each one file that needs nothing else: no script, no foreign asset, every text escaped.

`page` is the frame and the style, `strip` draws tokens and media, `charts` draws numbers; `check_page` and
`preview_page` are the two pages. They print nothing and read nothing.
"""
