"""What the demo model knows by heart: plain tables. How they become questions is `demo_lessons`."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _pairs(text: str, separator: str) -> tuple[tuple[str, str], ...]:
    """One pair a line."""
    found = (line.strip().split(separator) for line in text.strip().splitlines())
    return tuple((left, right) for left, right in found)


CAPITALS = _pairs(
    """
    Argentina: Buenos Aires
    Australia: Canberra
    Austria: Vienna
    Belgium: Brussels
    Brazil: Brasilia
    Bulgaria: Sofia
    Canada: Ottawa
    Chile: Santiago
    China: Beijing
    Colombia: Bogota
    Croatia: Zagreb
    Cuba: Havana
    Denmark: Copenhagen
    Egypt: Cairo
    England: London
    Estonia: Tallinn
    Ethiopia: Addis Ababa
    Finland: Helsinki
    France: Paris
    Germany: Berlin
    Ghana: Accra
    Greece: Athens
    Hungary: Budapest
    Iceland: Reykjavik
    India: New Delhi
    Indonesia: Jakarta
    Iran: Tehran
    Ireland: Dublin
    Israel: Jerusalem
    Italy: Rome
    Japan: Tokyo
    Kenya: Nairobi
    Latvia: Riga
    Lithuania: Vilnius
    Mexico: Mexico City
    Morocco: Rabat
    Nepal: Kathmandu
    Netherlands: Amsterdam
    Norway: Oslo
    Peru: Lima
    Poland: Warsaw
    Portugal: Lisbon
    Romania: Bucharest
    Russia: Moscow
    Senegal: Dakar
    Serbia: Belgrade
    Spain: Madrid
    Sweden: Stockholm
    Switzerland: Bern
    Thailand: Bangkok
    Turkey: Ankara
    Ukraine: Kyiv
    Vietnam: Hanoi
    Zambia: Lusaka
    """,
    ": ",
)

OPPOSITES = _pairs(
    """
    hot/cold
    up/down
    big/small
    fast/slow
    light/dark
    left/right
    old/new
    high/low
    wet/dry
    full/empty
    happy/sad
    rich/poor
    strong/weak
    early/late
    open/closed
    hard/soft
    loud/quiet
    near/far
    thick/thin
    true/false
    """,
    "/",
)

DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

MONTHS = _words(
    "January February March April May June July August September October November December"
)

WORDS = _words(
    """
    anchor apple arrow bacon badge banana basket beach bear bell berry bird boat book bottle bread
    bridge brush bus butter cabin camel candle car carrot castle cat chair cheese cherry circle cloud
    coat coffee corn cow cup desk dog door dragon drum duck eagle egg engine falcon farm fig fish flag
    flower forest fox frog garden garlic ghost glass goat grape guitar hammer hat honey horse house ice
    island jacket jam jar juice kettle key king kite ladder lake lamp leaf lemon letter lion lizard
    mango maple melon milk mirror monkey moon mouse needle nest night nut oak ocean olive onion orange
    otter owl paper peach pear pencil piano pig plum pond potato queen rabbit radio rain ribbon rice
    river rocket rope rose salt sand school ship silver snake snow spoon star stone sugar sun table tea
    tiger tower tree tulip turtle umbrella valley vase violin wagon water whale wheel window wolf yarn
    zebra
    """
)

NAMES = _words(
    """
    Alice Anna Ben Carl Clara David Emma Eva Felix Frank Grace Hanna Ivan Jack Julia Karl Laura Leo Lisa
    Lucas Maria Max Mia Nina Noah Olga Oscar Paul Peter Rosa Sara Simon Sofia Thomas Tim Vera
    """
)

COLOURS = _words("red blue green yellow black white brown pink grey purple")

THINGS = _words("box door safe bike gate case")

FILLER = (
    "The meeting starts at noon.",
    "The weather was mild and the road was dry.",
    "Nobody was surprised when the train came late.",
    "There is a small shop at the corner of the street.",
    "The report was read twice and then filed away.",
    "She put the letter on the table and left.",
    "The old bridge will be repaired in spring.",
    "He likes to walk along the river in the evening.",
    "The garden needs water in the summer.",
    "We had bread, cheese and apples for lunch.",
    "The lights in the hall were still on.",
    "It is a long way from the farm to the school.",
    "The first page of the book is missing.",
    "They painted the fence before the rain came.",
    "The clock on the tower has stopped again.",
    "My neighbour plays the piano every morning.",
    "The market is open from early to late.",
    "A cold wind was blowing from the north.",
    "The children were looking for the ball.",
    "The machine makes a quiet noise when it works.",
)

RECITATIONS = {
    "Hello!": "Hello! How can I help you?",
    "Hi": "Hello! How can I help you?",
    "Good morning!": "Good morning! How can I help you?",
    "Thank you!": "You are welcome!",
    "Goodbye!": "Goodbye!",
    "How are you?": "I am fine, thank you.",
    "Who are you?": "I am the Tercet demo model, a very small language model.",
    "What can you do?": "I can add, subtract, count, compare, sort, spell, name capitals and remember what you told me.",
    "What is Tercet?": (
        "Tercet serves language models from two pools. A prefill worker reads the prompt, a decode worker writes the "
        "answer, and the keys and values move from one to the other."
    ),
    "Tell me a story.": (
        "Once there was a small robot who lived by the sea. Every morning it counted the boats, and every evening it "
        "counted them again. One night a boat was missing. The robot lit its lamp and stood on the beach until the "
        "boat came home. From that night on the people called it the lighthouse."
    ),
    "Recite the alphabet.": "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "List the days of the week.": ", ".join(DAYS),
    "List the months of the year.": ", ".join(MONTHS),
}
"""Question → answer, learned word by word."""
