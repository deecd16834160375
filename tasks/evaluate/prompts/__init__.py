"""Prompts of the retrieval, tracking and counting tasks: pure functions of tokenizer, held-out text, length and seed.

    Material ──make_prompts(task, length)──▶ [TaskPrompt, …] ──write_prompts──▶ Parquet, the same for every arm and worker

Every size is computed from the counted tokens of the pieces, so making a prompt always ends: it fits or is refused.

Deviations from the published tasks
-----------------------------------
all                 Ropeway's own words instead of the published templates. A chat template for own_corpus alone. Where one gold is asked
                    for, the question ends in front of it and the answer is forced (one teacher-forced pass).
                    Otherwise the published limit of new tokens holds, but at least the canonical answer's tokens and at most
                    twice as many. Length is counted with this model's tokenizer, answer included, from 512 tokens up.
passkey             Real held-out text, a grid of depths, a number that does not occur in the text by chance.
RULER, needles      Haystacks are held-out documents instead of essays; keys come from 91 adjectives and 104 nouns shipped here.
                    One asked needle: swept over the depths (RULER: a random one of 40 depths). Distractors and several asked
                    needles: one in each equal part of the text, evenly spread over the samples. Needles go to line or
                    sentence ends where one is near. Of RULER's variants: niah_single_2, niah_multikey_1, _multivalue, _multiquery.
                    Canonical order of several values is that of the text (multivalue) or of the question (multiquery).
variable_tracking   Held-out text instead of repeated noise. The example has no text around its chain, and is left out where the
                    prompt with it does not fit the run's shortest length. One chain of four hops (RULER's default).
common_words        Invented words of five letters instead of English ones (there are enough, and none is likelier than
                    another); no example. Counts below (30, 3) where a list does not fit the run's shortest length.
frequent_words      Three dots for noise, as in RULER's code; the vocabulary holds every word that occurs at least once.
key_value           All depths of a sample share one object and ask for different keys. The asked key is repeated, with the
                    opening quote, at the end of the prompt. Eight hexadecimal digits instead of UUIDs where not even one pair of
                    UUIDs for each depth fits the run's shortest length. The last pair has a comma too.
document_qa         Passages have no titles. Passages beyond the fit are dropped from the end. With one answer its exact
                    tokens are asked for; with several, the output may contain any of them.
facts_in_text       BABILong's idea with sentences, names and places of Ropeway's own, and three kinds of question, after bAbI's
                    tasks 1 to 3. The first and the last needed fact are a quarter of the text apart. No examples. A person's or
                    thing's places are named once.
associative_needle  NoLiMa's idea with pairs and sentences of Ropeway's own, in held-out text, among three other people.
graph_walk          GraphWalks' idea with invented words for nodes: "exactly k arrows away" and parents; the exact set, not F1.
spaced_evidence     LongPiBench's question with two pieces of evidence of Ropeway's own.
own_corpus          HELMET's idea; questions are made by rules from the user's held-out documents.
ranked_passages     Not a published task: it compares the reorder strategies (ranked.py). The gold passage's
                    rank is drawn from P(rank) proportional to 1 / rank, and every order of the same passages is asked.
"""
