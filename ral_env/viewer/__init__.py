"""``ral view``: a page in the browser, to watch priors paint, to complete, to compare and to play.

``sources`` says what a name stands for, ``paintings`` computes, ``answers`` is what the page may
ask for, ``server`` speaks HTTP, ``command`` is the command; ``page/`` is what runs in the browser.
The server holds nothing of a tab: each question brings all that its answer depends on.
"""
