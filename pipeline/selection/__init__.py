"""Selection: which text of which record goes into which stream, by what is stored of them.

Nothing is scored here. `settings` is the section of the recipe; `cuts` turns what it says of the
whole corpus (a quantile, a best share, a quota) into numbers once; `faults` and `outcome` are the
decision as SQL, which runs over one part in `worker` and over the corpus in `what_if`.
"""
