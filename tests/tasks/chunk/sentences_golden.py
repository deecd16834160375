"""Sentences by hand: one case a line, `¦` in front of each sentence but the first. All written for this project."""

CASES = {
    "en": r"""
The ferry left at noon. ¦Nobody waved.
Is the bridge open? ¦It was closed in March! ¦We walked anyway.
Dr. Okafor signed the letter. ¦Mrs. Lindqvist posted it.
We met Prof. Adeyemi, Mr. Brown and Ms. Tanaka at the gate.
Gen. Harlow and Capt. Reyes disagreed. ¦Lt. Moss kept quiet.
The house on Elm St. Mary bought was cold.
She moved to St. Albans in spring. ¦The rent was lower.
J. R. Whitlock wrote the preface. ¦A. B. Stone drew the maps.
The novel by George R. R. Martin is long. ¦It took years.
J.R.R. Tolkien taught in Leeds.
The plan was simple: go with Plan B. ¦We packed at dawn.
You need vitamin C. ¦The doctor said so.
He is taller than I. ¦That bothers him.
She spoke to John F. Kennedy in 1961. ¦It rained.
Bring fruit, e.g. Apples from the north side, and bread.
Use a solvent, i.e. Water, and stir.
They sell nails, screws, hinges, etc. ¦The shop is small.
They sell nails, hinges, etc. in the back room.
The result (cf. Fig. 3) was clear. ¦Nobody doubted it.
See Fig. 12 and Eq. 4 for details. ¦They agree.
Refer to Sec. 5, pp. 12-14, and vol. 2 of the report.
Order no. 66 arrived late. ¦It was damaged.
No. 5 is alive. ¦No. 6 is not.
Will you come? ¦No. ¦I am tired.
Her answer was no. ¦We left.
The U.S. economy grew. ¦The U.K. economy did not.
He lives in the U.S. ¦She lives in Canada.
The U.S. Navy sent two ships.
At 5 p.m. the lights went out. ¦At 6 p.m. they came back.
The train leaves at 7 a.m. ¦We should hurry.
She holds a Ph.D. in chemistry. ¦He holds an M.A. in law.
He earned his Ph.D. ¦Then he rested.
Acme Inc. makes anvils. ¦Zenith Corp. makes radios.
She works for Acme Inc. ¦Her brother does not.
Martin Luther King Jr. spoke first.
The firm of Hale & Co. closed in May.
Smith et al. (2019) found nothing. ¦We did.
This was shown by Smith et al. ¦However, the sample was small.
The temple dates from 300 B.C. ¦It still stands.
In Jan. 2020 prices fell. ¦By Feb. 3 they rose.
On Mon. Sept. 4 the school opens.
Pi is about 3.14159 and e is 2.718. ¦Both are irrational.
The price rose by 0.5 percent to $4.20. ¦Buyers waited.
It costs 5. ¦That is cheap.
It happened in 1984. ¦Nobody noticed.
Chapter 3.2.1 explains it. ¦Section 4.1 does not.
Version 2.0.1 fixes the crash. ¦Version 2.1 adds tests.
Install release v1.10. ¦Then restart.
Visit www.example.org for details. ¦It is free.
Read https://example.com/a.b?c=d.e! ¦Then decide.
The page is at example.com. ¦Bookmark it.
Write to jane.doe@example.co.uk today. ¦She answers quickly.
My address is bob@mail.example. ¦Yours is lost.
Open setup.py and main.c first. ¦Run them later.
Node.js and ASP.NET are old news. ¦Rust is not.
Wait... what was that? ¦I heard it too.
I thought... I thought you knew.
He paused… ¦Then he laughed.
It was late ... too late, perhaps. ¦We ran.
"Stop!" he shouted. ¦Nobody stopped.
"Why?" she asked. ¦He had no answer.
"I know." ¦She closed the door.
She said, "It is done." ¦Then she left.
“It is over,” he said. ¦“Go home.”
‘Enough!’ cried the old man. ¦‘Sit down.’
He called it "the end." ¦It was not.
(He never came back.) ¦The house stood empty.
The house (built in 1901.) was sold.
We left early (it was raining!) and slept. ¦The rest stayed.
The door was open. ¦(It always was.) ¦We went in.
The rule is old [see note 4.]. ¦It still holds.
This is known.[3] ¦It is also disputed.[4] ¦So be careful.
The quotation ended there. ¦[...] ¦It went on later.
1. Open the box. ¦2. Remove the lid. ¦3. Close it again.
a. Wash the cup. ¦b. Dry it well.
Do two things:\n¦1. Call the office.\n¦2. Ask for Ann.
Bring these:\n¦- two ropes;\n¦- one lamp;\n¦- some bread.
Really?! ¦You did that?
What!? ¦No way!!! ¦Yes.
The end. ¦¿Qué? ¦Nothing.
The iPhone sold well. ¦eBay listed thousands.
It works on macOS. ¦iOS is next.
Rain fell. ¦5 people drowned.
Snow fell. ¦$40 was lost.
The temperature was 20 deg. C. in the shade.
The road is 5 mi. long. ¦It is steep.
Turn left on 5th Ave. ¦Then walk north.
They live on Sunset Blvd. in a tower.
He weighs 180 lbs. ¦His brother weighs less.
Sen. Warren met Rep. Cole. ¦Gov. Shaw was absent.
The approx. 300 guests ate at once.
The case Roe v. Wade was decided in 1973.
It was Arsenal vs. Chelsea. ¦Nobody scored.
Mt. Everest is high. ¦Ft. Worth is flat.
The letter was signed by M. Dupont.
The "No." on the form was crossed out.
All of it — every page. ¦Gone.
She whispered: "Run." ¦And they ran.
He asked who was there. ¦Nobody.
Her score was 9.5/10. ¦His was 8.
The ratio is 1.5:1. ¦Add water.
Meet at 10.30. ¦Bring a coat.
The file is named report.final.v2.docx. ¦Do not open it.
Is it A. or B.? ¦Choose one.
Mr. and Mrs. Hall came by. ¦They brought soup.
The dept. of history moved. ¦Its library stayed.
Use the min. and max. values. ¦Ignore the rest.
Roads, bridges, etc. ¦All were destroyed.
The meeting is at 9 a.m. on Friday. ¦Please bring the files.
Mr. T. Harris of No. 10 Hill Rd. wrote to us. ¦We replied at once.
Prices fell 3.5% in Q1. ¦In Q2 they rose by 1.2%.
"Are you coming?" he asked. ¦"Not today." ¦She hung up.
The committee (chaired by Dr. Lee) met twice. ¦It agreed on nothing.
He moved to Washington, D.C. ¦His wife stayed in N.Y.
See section 2.3. ¦It lists all of them.
They arrived on Jan. 5. ¦Nobody met them.
The amount was approx. $3.50. ¦We paid cash.
She works at Yahoo! and likes it. ¦Her boss does too.
What a day! ¦“I can’t believe it,” said Tom. ¦“Neither can I!”
Use foo.bar() to start. ¦Use foo.stop() to end.
The app needs iOS 12.1 or later. ¦Older phones fail.
He said (and I quote): "Never again." ¦We laughed.
I live in Apt. 4B. ¦It has no lift.
Her C.V. lists five jobs. ¦All were short.
It was Sgt. Pepper's band. ¦They played till 2 a.m. ¦Then they slept.
We use Python 3.11. ¦Java 8 is gone.
The answer is (b). ¦Option (c) is wrong.
Add salt, pepper, etc., and stir. ¦Serve hot.
Check https://example.org/docs/index.html. ¦It has examples.
He was born in 1822 (or 1823?). ¦His mother died young.
Item 4. was removed from the list.
"It is J. Smith's car." ¦"No, it is mine."
Why not? ¦Because. ¦OK.
The U.N. Security Council voted. ¦China abstained.
Gen. Lee, Lt. Col. West and Maj. Hart came.
The ph. value was 7. ¦That is neutral.
Rev. Dr. King spoke for 17 min. ¦Everybody listened.
Robert A. I. Smith drew the plan. ¦It was lost.
The letter came from Anna A. I. Berg of Hull.
1. Wash the cup ¦2. Dry the cup ¦3. Put it away
1) Wash the cup ¦2) Dry the cup ¦3) Put it away
1.) Wash the cup ¦2.) Dry the cup
a. Wash the cup ¦b. Dry the cup ¦c. Put it away
• 4. Wash the cup ¦• 5. Dry the cup
We moved from no. 1 to no. 2. ¦Then we slept.
The berth is N°. 17 on the quay. ¦It is free.
I saw . . . well, I heard . . . I was not there.
The rest was lost. ¦. . . The harbour slept.
He stopped in the middle . . . . ¦Nobody spoke.
The verse runs: "Night came. Slowly / the rope went down / and lay still."
""",
    "de": """
Das ist Dr. Weber. ¦Er wohnt nebenan.
Frau Prof. Dr. Lang hielt die Rede. ¦Alle klatschten.
Am 3. Oktober ist Feiertag. ¦Die Läden sind zu.
Der 2. Weltkrieg endete 1945. ¦Danach kam der Aufbau.
Es gibt viele Tiere, z. B. Hunde und Katzen. ¦Wir haben keine.
Es gibt Obst, z.B. Äpfel und Birnen. ¦Das reicht.
Das heißt, d. h. Morgen ist frei. ¦Gut so.
Wir kaufen Brot, Milch usw. ¦Das Geld reicht.
Siehe Abb. 4 und Kap. 7. ¦Dort steht alles.
Die Str. ist lang, ca. 300 Meter. ¦Dann kommt ein Platz.
Er lebte im 18. Jahrhundert. ¦Sie auch.
Ludwig XIV. König von Frankreich regierte lange.
Das kostet 3,50 Euro bzw. Nichts für Kinder.
Kommst du mit? ¦Ja! ¦Dann los.
„Komm her!“, rief sie. ¦Er blieb stehen.
Gemäß Art. 5 Abs. 3 ist das erlaubt. ¦Niemand klagte.
Die Nr. 7 fehlt. ¦Wo ist sie?
Das war im Jahr 1989. ¦Die Mauer fiel.
Es war der 5. ¦Er kam nicht.
Frau Dipl.-Ing. Huber prüfte die Brücke. ¦Sie hielt.
Er kam um 8 Uhr. ¦Um 9 Uhr ging er.
Die Fa. Müller & Co. liefert am 12. Mai. ¦Wir warten.
Laut § 3 Abs. 2 gilt das nicht. ¦Was nun?
Prof. Dr. med. Klein operiert. ¦Die Patientin schläft.
„Gut.“ ¦Sie nickte. ¦„Und jetzt?“
Das Treffen ist am 4. 5. 2020 in Bonn. ¦Alle kommen.
Er trank Wasser, Saft u. a. Getränke. ¦Danach schlief er.
Er fragte: ,,Wann kommst du?” ,,Morgen“, sagte sie. ¦Dann ging er.
Der Brief ist von Karl A. I. Brandt. ¦Er kam heute.
""",
    "fr": """
M. Dupont est arrivé. ¦Mme Martin est partie.
Le Dr. Petit dort. ¦Il est tard.
Voir p. 12 et fig. 3. ¦Tout y est.
Il a vécu au temps de J.-C. Lebrun, le peintre.
Des pommes, des poires, etc. ¦Elle a tout pris.
« Où vas-tu ? » demanda-t-il. ¦Elle ne répondit pas.
« Je pars. » ¦Il ferma la porte.
Il coûte 3,50 euros. ¦C'est cher.
Écrivez à paul.durand@exemple.fr. ¦Merci.
Cf. Annexe 2, av. Foch. ¦Rien d'autre.
Vraiment ?! ¦Oui.
L'art. 5 l'interdit. ¦On le fait quand même.
J.-P. Morel habite au 3, av. Hugo. ¦Il y vit seul.
Le n° 5 est perdu. ¦Le n° 6 aussi.
« Non. » ¦Elle sourit. ¦« Peut-être. »
Né en 52 av. J.-C. ¦Il mourut jeune.
""",
    "es": """
El Sr. García llegó tarde. ¦La Sra. López no vino.
La Dra. Ruiz opera hoy. ¦Mañana descansa.
¿Dónde estás? ¦¡Ven aquí! ¦No quiero.
Vive en EE. UU. desde 1999. ¦Le gusta.
Compró pan, leche, etc. ¦Luego volvió.
Véase la pág. 23 del vol. 2. ¦Es breve.
Ud. tiene razón. ¦Nosotros no.
El art. 14 es claro. ¦Nadie lo lee.
—Vamos. —dijo ella. ¦Él calló.
Cuesta 3.500 pesos. ¦Es caro.
Lea los párrs. 5 y 6 con calma. ¦Luego firme.
Vive en la Cra. 9 con su tía. ¦Es tarde.
La copia lleva el N°. 12 del archivo. ¦Está rota.
El lun. 15 de mayo cerramos. ¦Volvemos en junio.
""",
    "it": """
Il dott. Rossi è qui. ¦La sig.ra Bianchi aspetta.
Il prof. Verdi parla piano. ¦Nessuno sente.
Pane, latte, ecc. ¦Tutto è finito.
Vedi pag. 7 e art. 3. ¦Poi torna.
«Vieni?» chiese lei. ¦Lui rise.
Costa 2,50 euro. ¦È poco.
L'ing. Neri ha finito. ¦Il ponte regge.
Perché? ¦Non lo so.
Lo psicol. Neri arriva. ¦Aspettiamo.
Il dir. Sala firma. ¦Poi esce.
""",
    "pt": """
O Sr. Silva chegou. ¦A Sra. Costa saiu.
A Dra. Lima atende hoje. ¦Amanhã não.
Comprou pão, leite, etc. ¦Depois voltou.
Veja a pág. 9 do vol. 3. ¦É curto.
Não! ¦Por quê? ¦Porque sim.
O art. 7 proíbe. ¦Ninguém obedece.
Custa 3,50 reais. ¦É caro.
""",
    "nl": """
Dhr. Jansen is ziek. ¦Mevr. De Vries werkt door.
Er zijn dieren, bijv. Honden en katten. ¦Wij hebben vissen.
Zie blz. 8 en art. 2. ¦Daar staat het.
Brood, melk, enz. ¦Dat is alles.
Prof. dr. Bakker sprak lang. ¦Niemand sliep.
Kom je? ¦Nee! ¦Jammer.
Het kost ca. 5 euro. ¦Dat is veel.
""",
    "ru": """
А. С. Пушкин родился в Москве. ¦Он писал стихи.
Он живёт на ул. Ленина, д. 5. ¦Дом старый.
В 1812 г. Наполеон вошёл в Москву. ¦Город горел.
Хлеб, молоко и т. д. ¦Всё было куплено.
Где ты? ¦Я здесь! ¦Иди сюда.
См. рис. 3 и табл. 4. ¦Там всё есть.
Проф. Иванов ушёл. ¦Студенты остались.
«Куда ты? – спросил он. – Уже поздно».
Доктор А. И. Петров ушёл. ¦Дверь закрылась.
""",
    "zh": """
今天下雨。¦我们没有出门。
你好吗？¦我很好！¦谢谢。
他说：“走吧。”¦然后他走了。
价格是3.14元。¦不贵。
她来了，看见了。¦后来呢？¦没有人知道。
我们去看《等等！我来了》吧。¦好。
""",
    "ja": """
今日は雨です。¦出かけません。
元気ですか？¦はい！¦元気です。
「行こう。」と彼は言った。¦彼女はうなずいた。
円周率は3.14です。¦長い数です。
「だめだ！」って言った。¦それで終わった。
""",
    "xx": """
The sea is calm. ¦The wind is not.
क्या तुम आओगे? ¦मैं घर पर हूँ। ¦आओ।
هل أنت هنا؟ ¦نعم. ¦حسنا.
""",
}


def golden() -> list[tuple[str, str, list[int]]]:
    """(language, text, starts of its sentences but the first) of every case."""
    cases = []
    for language, block in CASES.items():
        for line in block.strip().splitlines():
            first, *others = line.replace("\\n", "\n").split("¦")
            text, starts = first, []
            for sentence in others:
                starts.append(len(text) + len(sentence) - len(sentence.lstrip()))
                text += sentence
            cases.append((language, text, starts))
    return cases
