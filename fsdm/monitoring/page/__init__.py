"""The page to look at: what the files of a data directory tell, in a browser, as it changes.

It is read-only. One thread does all that touches the disk (`observer`); what a browser is sent are documents that are
text already (`documents`), which a script places as text and never as markup.
"""
