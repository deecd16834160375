"""Steps 6 and 7: which documents stay. `near_duplicates` estimates similarity from MinHash signatures, `bands` compares them, and
`selection` keeps the first of equal and near-equal documents. `excerpts` finds passages that two documents share."""
