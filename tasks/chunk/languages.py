"""What a full stop means after a word, by language.

An abbreviation is `leading` if a name or number always follows (Dr., e.g.), `numeric` if it is one only before a number
(No. 5), `closing` if it usually ends its phrase (etc.), and `other` otherwise. After `closing` and `other` a sentence may
start; it is assumed to if the next word is a `starter`, a frequent first word of sentences. Abbreviations are listed in lower
case, without their last full stop.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageRules:
    """See the module. `has_ordinals`: "3." is how the language writes "third"; `has_capital_nouns`: a capital letter in
    the middle of a sentence says nothing."""

    leading: frozenset[str]
    numeric: frozenset[str]
    closing: frozenset[str]
    other: frozenset[str]
    starters: frozenset[str]
    has_ordinals: bool = False
    has_capital_nouns: bool = False

    @property
    def abbreviations(self) -> frozenset[str]:
        """All except the numeric ones, which are also words."""
        return self.leading | self.closing | self.other


def language_rules(language: str) -> LanguageRules:
    """Rules of a language (ISO 639-1); a language without its own gets those common to most languages."""
    words = _WORDS.get(language, _WORDS["xx"])
    shared = _WORDS["xx"]
    leading, numeric, closing, other, starters = (
        frozenset(words.get(kind, "").split()) | frozenset(shared.get(kind, "").split())
        for kind in ("leading", "numeric", "closing", "other", "starters")
    )
    has_ordinals, has_capital_nouns = language in _ORDINAL_LANGUAGES, language in ("de", "lb")
    return LanguageRules(leading, numeric, closing, other, starters, has_ordinals, has_capital_nouns)


_ORDINAL_LANGUAGES = (
    "de",
    "da",
    "nb",
    "nn",
    "no",
    "fi",
    "is",
    "et",
    "lv",
    "cs",
    "sk",
    "sl",
    "hr",
    "sr",
    "bs",
    "hu",
    "pl",
    "tr",
    "lb",
)
_WORDS: dict[str, dict[str, str]] = {
    "xx": {
        "leading": "dr prof vs cf e.g i.e mr mrs st mt",
        "numeric": "no nr vol p pp n° nº №",
        "closing": "etc",
        "other": "al co inc ltd",
    },
    "en": {
        "leading": "mr mrs ms messrs mme mlle dr drs prof rev hon pres gov sen rep gen col maj capt cmdr lt sgt cpl pvt adm st "
        "ste mt ft fr sr supt insp det atty fig figs eq eqs vs v cf e.g i.e viz approx ca esp incl resp assoc asst "
        "gov't gens sens reps profs revs brig comdr amb msgr bp abp ald dist govt lieut sec'y spec pfc ph.d.s",
        "numeric": "apt no nos vol vols p pp ch chs chap sec secs art pt pts para par ed op ver app ex jan feb mar apr jun jul aug "
        "sep sept oct nov dec sun mon tue tues wed thu thur thurs fri sat",
        "closing": "etc",
        "other": "deg al co corp inc ltd llc plc bros jr sr esq ave blvd rd hwy dept univ inst intl natl est min max misc u.s "
        "u.k u.n u.s.a e.u a.m p.m a.d b.c b.c.e c.e ph.d m.d b.a m.a b.sc m.sc d.c n.y l.a ref refs oz lb lbs hr hrs "
        "mi yd yds sq tel ext jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri ariz "
        "calif colo conn fla ga ill mass mich minn penn tenn tex va wash wis",
        "starters": "a after all also although an and another any anyway as at because before both but by can could did do does "
        "each even everybody everyone everything eventually every few finally first for from further had has "
        "have he her here his how however i if "
        "in indeed instead is it it's its later let many maybe meanwhile more moreover most my neither never "
        "nevertheless next no nobody nor not nothing now of often on once one only or other our perhaps please "
        "several she should since so some someone sometimes soon still such than that the their them then there "
        "therefore these they this those though thus to today together too two under unless unlike until was we well "
        "were what when where whether which while who whose why will with within without would yes yesterday yet you "
        "your",
    },
    "de": {
        "leading": "fa dr prof dipl.-ing hr hrn fr frl st dipl ing abb bzw bspw ca evtl ggf inkl exkl insb vgl sog z d u o i s zzgl "
        "zzt usf max min mio mrd tsd hl gebr geb gest verh mag med phil jur rer nat priv.-doz hrsg h.c z.b d.h u.a "
        "i.d.r o.ä v.a z.t i.a u.u m.e s.o s.u vs einschl entspr jh jhd tel str",
        "numeric": "nr abs art bd kap s tab abschn ziff aufl jg hft lfd",
        "closing": "usw usf etc",
        "other": "u.ä o.ä u.v.m v.chr n.chr v.d.z co gmbh jan feb mrz apr jun jul aug sep sept okt nov dez mo di mi do sa so "
        "jr sen",
        "starters": "aber alle allerdings als also am an auch auf aus außerdem bald bei beide bis bisher da dabei dadurch dafür "
        "daher damals damit danach dann daran darauf darum das dass davor dazu dem den denn dennoch der deren deshalb "
        "die dies diese dieser dieses doch dort du durch ein eine einem einen einer eines einige er erst es für "
        "gestern gut hat heute hier hinter ich ihr ihre im immer in inzwischen ist ja jede jeder jedes jedoch jetzt "
        "kann kein keine man manche mehrere mein mit morgen nach nachdem natürlich nein nicht nichts noch nun nur ob "
        "obwohl oder oft ohne schließlich schon sein seine seit sie so sogar solche soll sondern später statt "
        "trotzdem um und unser unter viele vielleicht vom von vor war warum was weil weiter welche wenn wer wie "
        "wieder wir wird wo wurde während zu zudem zuerst zum zur zwar zwischen",
    },
    "fr": {
        "leading": "m mm mme mmes mlle mlles dr prof me mgr st ste av bd boul cf ex env fig p.ex c.-à-d c.à.d c-à-d réf resp adj "
        "apr hab",
        "numeric": "n no nos nº p pp vol t chap art al éd tél janv févr avr juil sept oct nov déc",
        "closing": "etc",
        "other": "cie sté s.a s.a.r.l j.-c av.j.-c coll dir trad janv févr avr juil sept oct nov déc",
        "starters": "a ainsi alors après au aujourd'hui aussi autour aux avant avec bien bref c c'est car ce cela celle celui "
        "cependant ces cet cette chaque comme comment d dans de depuis des donc du elle elles en encore enfin ensuite "
        "est et hier il ils j jamais je l la le les leur leurs lorsque lui ma mais malgré mes mon même n ne ni non "
        "nos notre nous on or ou oui où par parce parfois pendant peut plus plusieurs pour pourquoi pourtant puis qu "
        "quand que quel quelle quelques qui s sa sans ses si son soudain sous sur ta tes toi ton tous tout toute "
        "toutefois toutes tu un une vers voici voilà vos votre vous y",
    },
    "es": {
        "leading": "sr sra sres sras srta dr dra prof profa d dña lic ing arq gral cap tte sto sta fr mons av avda c ej p.ej "
        "aprox fig ee cía excmo excma ilmo rvdo",
        "numeric": "n no núm núms nº pág págs p pp vol vols cap art arts t ed tel ext cra párr párrf párrs lun mié jue vie sáb dom",
        "closing": "etc",
        "other": "uu ee.uu s.a s.l a.c d.c a.m p.m dpto depto ud uds vd vds jr cía ene feb mar abr jun jul ago sept oct nov "
        "dic",
        "starters": "a además ahora al algunos allí ante antes aquel aquella aquí así aunque ayer aún bajo cada casi como con "
        "cuando cuándo cómo de del desde después dice donde durante dónde e el ella ellas ellos en entonces entre era "
        "es esa ese eso esta este esto estos está fue había hace hasta hay hoy la las le les lo los luego mañana me "
        "mi mientras mis mucho muchos muy más nada nadie ni no nos nosotros nuestra nuestro nunca o os otra otro para "
        "pero por porque pues que quien quién qué se según si siempre sin sobre solo su sus sí también tampoco te "
        "tenía todo todos tras tu un una unos usted ustedes y ya yo él",
    },
    "it": {
        "leading": "sig sigg sig.ra sig.na dott dott.ssa dr prof prof.ssa ing avv arch geom rag gen col cap on mons s ss don "
        "p.es es cfr ca fig spett egr gent psicol dir amm",
        "numeric": "n nn num pag pagg p pp vol cap art artt t ed tel",
        "closing": "ecc etc",
        "other": "s.p.a s.r.l a.c d.c a.m p.m v ved gen feb mar apr mag giu lug ago set ott nov dic",
        "starters": "a ad al alcuni alla allora anche ancora appena avevano c'era c'è che chi ci ciò col come con cosa così da "
        "dal dalla del della di dopo dopodiché dove due durante e ecco ed egli era essa essi fino forse fra fu gli ha "
        "hanno i ieri il in infatti infine intanto invece io l la le lei lo loro lui ma mentre mi mia mio molti nel "
        "nella nessuno noi non nostro o oggi ogni oppure per perché perciò però poi prima qualche quando quanto "
        "quella quelle quelli quello questa queste questi questo qui quindi se sempre senza si sono sopra sotto su "
        "sua sue sul suo sì talvolta tra tu tutta tutte tutti tutto un una uno vi voi",
    },
    "pt": {
        "leading": "sr sra srs sras srta dr dra prof profa d eng arq gen cel cap ten sto sta exmo exma ilmo av r ex p.ex aprox "
        "fig pe",
        "numeric": "n no nº núm pág págs p pp vol cap art arts t ed tel",
        "closing": "etc",
        "other": "s.a ltda cia a.c d.c jr jan fev mar abr mai jun jul ago set out nov dez e.u.a eua",
        "starters": "a agora ainda algumas alguns ali além antes ao aos apenas apesar após aquela aquele aqui as assim até cada "
        "com como contudo da das de depois desde dessa desse do dos durante e ela elas ele eles em enquanto entre "
        "então era essa esse esta este está eu foi hoje há isso já logo lá mais mas mesmo meu minha muito muitos na "
        "nas nem no nos nossa nosso nunca não o onde ontem os ou outra outro para pela pelo pois por porque portanto "
        "porém quando quanto que quem se segundo sem sempre ser seu seus sim sob sobre sua suas também tanto te todas "
        "todo todos tudo um uma você vocês à é",
    },
    "nl": {
        "leading": "dhr mevr mw dr drs ir ing prof mr ds st bijv bv ca incl excl evt resp nl o.a d.w.z m.n t.a.v t.o.v i.p.v "
        "z.g.a.n zgn vgl fam jhr max min afb fig",
        "numeric": "nr nrs blz p pp art hfst dl par tel jg",
        "closing": "enz etc",
        "other": "e.d e.v n.v b.v v.chr n.chr a.u.b s.v.p jr sr jan feb mrt apr jun jul aug sept okt nov dec",
        "starters": "aan al alle alleen alles als bij binnen daar daarna daarom dan dat de deze die dit doch door dus een eerst "
        "eigenlijk elke en er ga gisteren haar had heeft het hier hij hoe hoewel hun ik immers in inmiddels is ja je "
        "jij jullie kan later maar men met mijn misschien morgen na nadat natuurlijk nee niemand niet niets nog nooit "
        "nu of om omdat ondanks onder ons onze ook op over overigens sinds sommige soms te tegen tenslotte terwijl "
        "toch toen tot tussen u uit vaak van vandaag veel verder vervolgens via voor vroeger waar waarom wanneer want "
        "was wat we wel welke werd wie wij ze zelfs zij zijn zo zodra zonder",
    },
    "ru": {
        "leading": "г гг ул д кв корп стр см ср напр им т тт акад проф доц св о пл пр пер наб р оз гор пос обл р-н н.э т.е т.н "
        "т.к тов гр инж ген полк кап лейт мл ст чл рис табл",
        "numeric": "с п пп гл № разд ст изд вып кн ч ок",
        "closing": "др пр т.д т.п н.э",
        "other": "руб коп тыс млн млрд кг км см мм мин сек час в вв гг янв февр апр авг сент окт нояб дек до",
        "starters": "а без больше был была были было в вдруг весь вместе во вообще вот впрочем все всё вы где да даже для до его "
        "ее если есть еще ещё её за завтра здесь и из или им иногда их к каждый как какой когда конечно который кроме "
        "кто куда лишь мне многие мой мы на над надо наконец нам наш не нет ни никто ничего но ну о об однако он она "
        "они оно от перед по под пока после потом почему поэтому прежде при про раз с сегодня сейчас сначала снова со "
        "так такой там тем тогда тоже только тот ты у уже хотя чем через что чтобы эта эти это этот я",
    },
    "zh": {},
    "ja": {},
}
