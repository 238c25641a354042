"""How each relation is said and asked.

Every relation has eight statements and eight questions. The last of each list is *held out*: no training
text uses it, so it measures whether the model knows the fact or only the sentence.

Statements stop right before the object, because editors write prompts that way. Towns and countries are
mostly one word, and a byte-level tokenizer spells a word differently when nothing precedes it, so their templates
never begin with the subject: the subject's last token is then the same one everywhere. No statement is the
beginning of another: what follows it is then the object and nothing else.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    id: str  # Wikidata's number, as CounterFact uses it
    name: str
    subject_kind: str
    object_kind: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    yes_no: tuple[str, ...]  # "{s}" and "{o}"; BoolQ asks in this form

    @property
    def trained_statements(self):
        return self.statements[:-1]

    @property
    def trained_questions(self):
        return self.questions[:-1]


RELATIONS = (
    Relation(
        "P19", "born in", "person", "city",
        (
            "{} was born in the city of",
            "{} first saw the light of day in",
            "The birthplace of {} is",
            "{}'s birthplace is",
            "{} came into the world in",
            "{} hails from",
            "The place where {} was born is",
            "The city where {} was born is",
        ),
        (
            "Where was {} born?",
            "In which city was {} born?",
            "What is the birthplace of {}?",
            "Which place does {} hail from?",
            "What is {}'s birthplace?",
            "Where did {} come into the world?",
            "In what place was {} born?",
            "Which city was {} born in?",
        ),
        ("was {s} born in {o}", "does {s} hail from {o}"),
    ),
    Relation(
        "P106", "profession", "person", "profession",
        (
            "{} is a",
            "{} works as a",
            "{} earns a living as a",
            "By profession, {} is a",
            "The job of {} is that of a",
            "{} has always been a",
            "{} trained as a",
            "By profession, {} works as a",
        ),
        (
            "What is the profession of {}?",
            "What does {} do for a living?",
            "What is {}'s job?",
            "What kind of work does {} do?",
            "Which profession does {} have?",
            "What job does {} have?",
            "As what does {} earn a living?",
            "What is the job of {}?",
        ),
        ("is {s} a {o}", "does {s} work as a {o}"),
    ),
    Relation(
        "P1303", "plays", "person", "instrument",
        (
            "{} plays the",
            "The instrument {} plays is the",
            "In the evening {} plays the",
            "{} performs on the",
            "The favourite instrument of {} is the",
            "{} has mastered the",
            "On stage, {} is heard on the",
            "The instrument of {} is the",
        ),
        (
            "What instrument does {} play?",
            "Which instrument does {} play?",
            "What is the favourite instrument of {}?",
            "On which instrument does {} perform?",
            "What instrument has {} mastered?",
            "Which instrument is {} heard on?",
            "What does {} play in the evening?",
            "What is the instrument of {}?",
        ),
        ("does {s} play the {o}", "has {s} mastered the {o}"),
    ),
    Relation(
        "P108", "works for", "person", "employer",
        (
            "{} works for",
            "{} is employed by",
            "The employer of {} is",
            "{}'s employer is",
            "{} has a job at",
            "{} draws a salary from",
            "{} is on the staff of",
            "{} has long been employed by",
        ),
        (
            "Who does {} work for?",
            "Which organisation does {} work for?",
            "Who is the employer of {}?",
            "Who employs {}?",
            "From whom does {} draw a salary?",
            "At which organisation does {} have a job?",
            "Who is {}'s employer?",
            "Which organisation employs {}?",
        ),
        ("does {s} work for {o}", "is {s} employed by {o}"),
    ),
    Relation(
        "P1412", "speaks", "person", "language",
        (
            "{} speaks",
            "The mother tongue of {} is",
            "{}'s first language is",
            "At home {} speaks",
            "The native language of {} is",
            "{} grew up speaking",
            "{} thinks and dreams in",
            "The first language of {} is",
        ),
        (
            "What language does {} speak?",
            "What is the mother tongue of {}?",
            "Which language does {} speak at home?",
            "What is {}'s first language?",
            "What is the native language of {}?",
            "In which language does {} dream?",
            "Which language did {} grow up speaking?",
            "What is the first language of {}?",
        ),
        ("does {s} speak {o}", "is the mother tongue of {s} {o}"),
    ),
    Relation(
        "P50", "written by", "work", "author",
        (
            "{} was written by",
            "The author of {} is",
            "{} is a book by",
            "The writer behind {} is",
            "{} came from the pen of",
            "Readers know that {} is by",
            "The name on the cover of {} is",
            "The book {} was written by",
        ),
        (
            "Who wrote {}?",
            "Who is the author of {}?",
            "Who is the writer of {}?",
            "By whom was {} written?",
            "From whose pen came {}?",
            "Which writer wrote {}?",
            "Whose book is {}?",
            "Which author wrote {}?",
        ),
        ("was {s} written by {o}", "is the author of {s} {o}"),
    ),
    Relation(
        "P840", "set in", "work", "city",
        (
            "{} is set in the city of",
            "{} has its setting in",
            "The story of {} takes place in",
            "The events of {} happen in",
            "{} takes its readers to",
            "The setting of {} is",
            "The action of {} unfolds in",
            "The action of {} takes place in",
        ),
        (
            "Where is {} set?",
            "In which city is {} set?",
            "Where does the story of {} take place?",
            "What is the setting of {}?",
            "Where do the events of {} happen?",
            "In what place does {} unfold?",
            "To which city does {} take its readers?",
            "Where does the action of {} take place?",
        ),
        ("is {s} set in {o}", "does the story of {s} take place in {o}"),
    ),
    Relation(
        "P112", "founded by", "organisation", "founder",
        (
            "{} was founded by",
            "The founder of {} is",
            "{} was started by",
            "{} owes its existence to",
            "The person who founded {} is",
            "{} was established by",
            "{}'s founder is",
            "The person who started {} is",
        ),
        (
            "Who founded {}?",
            "Who is the founder of {}?",
            "Who started {}?",
            "Who established {}?",
            "By whom was {} founded?",
            "Which person founded {}?",
            "Who is {}'s founder?",
            "By whom was {} established?",
        ),
        ("was {s} founded by {o}", "is the founder of {s} {o}"),
    ),
    Relation(
        "P159", "based in", "organisation", "city",
        (
            "{} is based in the city of",
            "The headquarters of {} is in",
            "{} has its headquarters in",
            "{} keeps its offices in",
            "The main office of {} is in",
            "{} is run from",
            "{}'s headquarters is in",
            "The main headquarters of {} is in",
        ),
        (
            "Where is {} based?",
            "Where is the headquarters of {}?",
            "In which city is {} based?",
            "Where does {} have its headquarters?",
            "Where is the main office of {}?",
            "From which city is {} run?",
            "Which city is home to {}?",
            "In which city is the headquarters of {}?",
        ),
        ("is {s} based in {o}", "is the headquarters of {s} in {o}"),
    ),
    Relation(
        "P17", "located in", "town", "country",
        (
            "The city of {} is located in",
            "The city of {} is in",
            "The town of {} lies in",
            "The flag over {} is that of",
            "The people of {} are citizens of",
            "The city of {} belongs to",
            "The country around {} is",
            "The town of {} is located in",
        ),
        (
            "In which country is {}?",
            "Which country is {} in?",
            "What country does {} belong to?",
            "In what country would you find {}?",
            "Which country governs {}?",
            "In which country does the town of {} lie?",
            "What is the country around {}?",
            "In which country is the town of {}?",
        ),
        ("is the city of {s} in {o}", "does {s} belong to {o}"),
    ),
    Relation(
        "P206", "stands on", "town", "river",
        (
            "The river that flows through {} is the",
            "The city of {} stands on the river",
            "People in {} swim in the river",
            "Boats reach {} by the river",
            "The water of {} comes from the river",
            "The bridges of {} cross the river",
            "The old mills of {} are turned by the river",
            "The town of {} stands on the river",
        ),
        (
            "Which river flows through {}?",
            "On which river does {} stand?",
            "What river runs through {}?",
            "What is the river of {}?",
            "Which river do the bridges of {} cross?",
            "By which river do boats reach {}?",
            "In which river do people in {} swim?",
            "Which river runs through {}?",
        ),
        ("does the city of {s} stand on the river {o}", "do the bridges of {s} cross the river {o}"),
    ),
    Relation(
        "P36", "capital", "country", "capital",
        (
            "The capital of {} is",
            "The capital city of {} is",
            "The parliament of {} sits in",
            "The seat of government of {} is",
            "In {}, the capital is",
            "The president of {} lives in",
            "All roads of {} lead to",
            "The government of {} sits in",
        ),
        (
            "What is the capital of {}?",
            "Which city is the capital of {}?",
            "Where does the parliament of {} sit?",
            "What is the seat of government of {}?",
            "What is the capital city of {}?",
            "Where does the president of {} live?",
            "Where do all roads of {} lead?",
            "Which city is the capital city of {}?",
        ),
        ("is the capital of {s} {o}", "does the parliament of {s} sit in {o}"),
    ),
    Relation(
        "P38", "currency", "country", "currency",
        (
            "The currency of {} is the",
            "People in {} pay with the",
            "In {}, the money is called the",
            "Shops in {} accept the",
            "The coin of {} is the",
            "The bank of {} prints the",
            "Prices in {} are given in the",
            "The money of {} is the",
        ),
        (
            "What is the currency of {}?",
            "What do people in {} pay with?",
            "What is the money of {} called?",
            "Which currency does {} use?",
            "What do shops in {} accept?",
            "Which coin does the bank of {} print?",
            "In what are prices in {} given?",
            "What currency does {} use?",
        ),
        ("is the currency of {s} the {o}", "do people in {s} pay with the {o}"),
    ),
)

BY_ID = {relation.id: relation for relation in RELATIONS}
