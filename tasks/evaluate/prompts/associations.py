"""Pairs that world knowledge connects: what the text names, and what the question asks for.

After the idea of NoLiMa (Modarressi et al. 2025, arXiv 2502.05167). Its data is not free; these pairs and sentences are Ropeway's own.
A pair may be used only where sentence and question share no content word, which a test checks for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.evaluate.prompts.words import word_list


@dataclass(frozen=True)
class Association:
    """The text says `clue` and the question `place`. `kind` chooses the sentences."""

    kind: str
    clue: str
    place: str

    def needle(self, name: str) -> str:
        return f"\n# {name} {_SENTENCES[self.kind][0].format(clue=self.clue)}.\n"

    @property
    def question(self) -> str:
        """It ends in front of the name."""
        return f"\n# {_SENTENCES[self.kind][1].format(place=self.place)}"


_SENTENCES = {
    "landmark": ("rents a room beside the {clue}", "Who lives in {place}? The person is"),
    "nature": ("camped at the foot of {clue}", "Who travelled to {place}? The person is"),
    "dish": ("learned to prepare {clue} at home, as every neighbour does", "Who grew up in {place}? The person is"),
    "money": ("pays for bread with {clue}", "Who lives in {place}? The person is"),
}

ASSOCIATIONS = tuple(
    Association(kind, *pair.split(" = "))
    for kind, pairs in {
        "landmark": (
            "Rialto Bridge = Venice|Brandenburg Gate = Berlin|Eiffel Tower = Paris|Trevi Fountain = Rome|"
            "Sagrada Familia = Barcelona|Charles Bridge = Prague|Little Mermaid statue = Copenhagen|Acropolis = Athens|"
            "Hagia Sophia = Istanbul|Kremlin = Moscow|Hermitage = Saint Petersburg|Atomium = Brussels|"
            "Anne Frank House = Amsterdam|Prado = Madrid|Uffizi = Florence|Schoenbrunn Palace = Vienna|"
            "Fisherman's Bastion = Budapest|Wawel Castle = Krakow|Buckingham Palace = London|Royal Mile = Edinburgh|"
            "Guinness brewery = Dublin|Golden Gate Bridge = San Francisco|Statue of Liberty = New York|"
            "Space Needle = Seattle|Willis Tower = Chicago|CN Tower = Toronto|"
            "Christ the Redeemer statue = Rio de Janeiro|Casa Rosada = Buenos Aires|Burj Khalifa = Dubai|"
            "Wailing Wall = Jerusalem|Forbidden City = Beijing|Bund promenade = Shanghai|Senso-ji temple = Tokyo|"
            "Merlion fountain = Singapore|Petronas Towers = Kuala Lumpur|Opera House with the white sails = Sydney|"
            "Gateway of India arch = Mumbai|Red Fort = Delhi|Bolshoi = Moscow"
        ),
        "nature": (
            "Table Mountain = Cape Town|Mount Fuji = Japan|Mount Etna = Sicily|Mount Kilimanjaro = Tanzania|"
            "the Matterhorn = Switzerland|Ayers Rock = Australia|Ben Nevis = Scotland|Mount Vesuvius = Naples|"
            "Sugarloaf peak = Brazil|Mount Ararat = Turkey"
        ),
        "dish": (
            "paella = Spain|goulash = Hungary|sushi = Japan|borscht = Ukraine|haggis = Scotland|pierogi = Poland|"
            "moussaka = Greece|kimchi = Korea|pho = Vietnam|ceviche = Peru"
        ),
        "money": ("yen = Japan|roubles = Russia|zlotys = Poland|rupees = India|forints = Hungary|kronor = Sweden"),
    }.items()
    for pair in (one.strip() for one in pairs.split("|"))
)
NAMES = word_list(
    "Mirela Anton Sabine Jorik Talia Ruben Odile Casper Ingrid Matteo Selma Viktor Noemi Felix Astrid Goran Paula "
    "Lennart Ines Yusuf Magda Cyril Renata Stellan"
)
