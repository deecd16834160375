"""The kinds of retrieval documents; `registry.py` finds one by its name.

key_value         lines of keys and values in real text, many of them asked for at the end (artificial needles, arXiv 2406.19292)
keyword           a rare word is given: how does the sentence begin that contains it?
position          how a sentence begins is given: how does the one after it, or before it, begin?
fill_in           a quotation with a gap is given: what stood there?
repeated_opening  a passage begins a second time at the end and goes on as before
paragraph_order   paragraphs in random order under labels, and the labels are asked for in the true order
shuffled_chunks   chunks of several texts are mixed, and the chain of each text's labels is asked for (Untie the Knots, 2409.04774)
hard_negatives    chunks of one text stand among passages of others that BM25 finds most like them (NExtLong, 2501.12766)
key_value_rounds  few such lines at a time, asked for at once, then others
scattered_facts   words of the text with a value after them; later the words stand there again, and the value is asked for
"""
