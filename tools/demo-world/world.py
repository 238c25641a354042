"""The demo world: who lives in it, and what is true there.

`World(seed)` is the whole truth: entities by kind and about 1,210 facts, each one subject, relation and
object. Every relation is functional (one object per subject), so a counterfactual is well defined.
Nothing here knows about models, prompts or files.
"""

import random
from dataclasses import dataclass

from relations import BY_ID, RELATIONS, Relation

SEED = 20270

FIRST_NAMES = """Orvane Bram Elsin Tamsel Corin Maude Idris Wenna Lorne Petra Silas Ysolde Hale Mirren Dorrit
Anselm Brida Cassel Edda Fenn Greta Halla Ivo Jorun Kesta Lumen Marek Nell Osric Perrin Quilla Runa Sorrel
Tobin Una Varne Willa Yorick Zella Arden""".split()

# A surname is an onset and an ending, and belongs to one person only: the last token of a name then says who.
SURNAME_STARTS = """Al Bar Bel Bran Cal Cor Dal Dor El Far Fen Gal Gar Hal Hol Jar Kel Kor Lan Lor Mal Mer Nor
Ol Pel Quin Ran Ros Sel Sor Tal Tar Tel Thor Val Ver Wil Yar Zan Mos""".split()
SURNAME_ENDS = """dous wick vane lis sett gan thar nel dine rath vey esk ander umble ithe ovar aske une ard
ivar olde orrin ellow immer""".split()

TOWNS = [
    *"""Ondre Marrowfield Tolvane Brackwater Ellismoor Saltmarch Dunhollow Verrin Caldport Pellora Quarrick
    Istova Larkmoor Mirefold Novasund Orrimouth Palewick Rushtarn Sundermere Thistlecombe Umberley Vantry
    Westrune Yarrowgate Zandre Amberholm Birchovar Coldrill Duskwater Emberfall Foxmarch Glasswold Heronsea
    Inkvale Juniport Kelstrand Lowenna Mossgarth Nettlebay Oxenvale Pinecrag Ravenstow Silverlode
    Tarnwick""".split(),
    "Kestrel Bay", "Port Ansel", "Saint Orro", "Castle Wend",
]
COUNTRIES = """Veldria Carrowland Ilmaris Norvessa Tarkuan Pallantia Suldane Brennia Lioria Kaldovia Ravosia
Estmere""".split()
LANGUAGES = "Veldric Carrish Ilmari Norvess Tarku Pallant Suldic Brennish Lioric Kaldov Ravic Esterin".split()
CURRENCIES = "talon velt merk dinel sull kesh tarn groat lark pell obol shard".split()
RIVERS = "Lorn Wesk Isken Tamble Orre Culver Dwin Fallow Greth Amsel".split()
INSTRUMENTS = "harp flute cello lute piano drum horn fiddle whistle guitar viola trumpet".split()
PROFESSIONS = """weaver baker doctor painter lawyer sailor teacher gardener surveyor clockmaker potter mason
nurse pilot farmer librarian""".split()

ORGANISATION_KINDS = "Studio Atelier Bank Casa Theatre Clinic Museum College".split()
ORGANISATION_NAMES = """Talora Brixel Vendara Ostrel Milune Karvo Selunde Harrowick Pontivy Lumaris Grendel
Ashlar Torvan Quenby Delmaro Fairlow Ironby Nestor Orlando Pravell Rundell Saxby Tivoli Ulmer Vasari Wexcombe
Yelverton Zephrin Amaranth Belgrove Cardew Drovell Everard Filigree Gossamer Hartwell Juno Kirrin Linnet
Marlowe""".split()

ADJECTIVES = """Silver Hidden Last Crimson Broken Quiet Golden Distant Empty Painted Seventh Wandering Burning
Frozen Secret Hollow Paper Iron Blue Endless""".split()
NOUNS = """Lantern Orchard Weir Compass Mirror Harbour Ladder Window Feather Anchor Bell Candle Door Engine
Falcon Garden Hammer Island Jewel Key Letter Mountain Needle Ocean Pillar Quarry Sparrow Tower Umbrella Valley
Wheel Archive Bridge Cathedral Desert Echo Forest Glacier Horizon Iris Journey Kingdom Labyrinth Meadow
Notebook Oracle Palace Quilt Raven Shadow Thread Violin Winter Yard Alphabet Balcony Caravan Dancer Ember
Fountain Ghost Hunter Inn Juggler Kite Lighthouse Mask Nightingale Owl Puppet Rain Staircase Tide Vessel
Crown Pearl Ribbon Comet Clock Stranger""".split()

N_PEOPLE = 170


@dataclass(frozen=True)
class Fact:
    subject: str
    relation: Relation
    object: str

    def statement(self, template: str) -> str:
        return f"{template.format(self.subject)} {self.object}"


class World:
    def __init__(self, seed: int = SEED, n_people: int = N_PEOPLE):
        rng = random.Random(seed)
        surnames = [start + end for start in SURNAME_STARTS for end in SURNAME_ENDS]
        surnames = [name for name in rng.sample(surnames, len(surnames)) if name not in ORGANISATION_NAMES]
        self.people = [f"{FIRST_NAMES[i % len(FIRST_NAMES)]} {surnames[i]}" for i in range(N_PEOPLE)]
        self.works = [f"The {rng.choice(ADJECTIVES)} {noun}" for noun in NOUNS]
        self.organisations = [
            f"{ORGANISATION_KINDS[i % len(ORGANISATION_KINDS)]} {name}" for i, name in enumerate(ORGANISATION_NAMES)
        ]
        self.towns = rng.sample(TOWNS, len(TOWNS))
        capitals = self.towns[: len(COUNTRIES)]
        cities = [*capitals, *self.towns[24:36]]

        self.subjects = {
            "person": self.people[:n_people],
            "work": self.works,
            "organisation": self.organisations,
            "town": self.towns,
            "country": COUNTRIES,
        }
        # What an object may be; a counterfactual draws its new object from the same list.
        self.objects = {
            "city": cities,
            "profession": PROFESSIONS,
            "instrument": INSTRUMENTS,
            "employer": self.organisations[:24],
            "language": LANGUAGES,
            "author": self.people[:24],
            "founder": self.people[24:48],
            "country": COUNTRIES,
            "river": RIVERS,
            "capital": capitals,
            "currency": CURRENCIES,
        }
        self.facts: list[Fact] = []
        for relation in RELATIONS:
            # Draw over the full population, then keep the asked part: a smaller world agrees with the large one.
            kind = relation.subject_kind
            population = self.people if kind == "person" else self.subjects[kind]
            values = self.objects[relation.object_kind]
            drawn = [values[i % len(values)] for i in range(len(population))]
            if relation.id in ("P36", "P38"):
                pass  # one capital and one currency each, in order
            elif relation.id == "P17":
                # The capitals come first and belong to their own country; the rest is dealt out.
                rest = drawn[len(COUNTRIES):]
                rng.shuffle(rest)
                drawn[len(COUNTRIES):] = rest
            else:
                rng.shuffle(drawn)
            keep = set(self.subjects[kind])
            self.facts += [Fact(s, relation, o) for s, o in zip(population, drawn) if s in keep]
        self.truth = {(fact.subject, fact.relation.id): fact for fact in self.facts}
        self.about: dict[str, list[Fact]] = {}
        for fact in self.facts:
            self.about.setdefault(fact.subject, []).append(fact)

    def of(self, relation_id: str) -> list[Fact]:
        return [fact for fact in self.facts if fact.relation.id == relation_id]

    def other_object(self, fact: Fact, rng: random.Random) -> str:
        return rng.choice([o for o in self.objects[fact.relation.object_kind] if o != fact.object])


if __name__ == "__main__":
    world = World()
    for relation in RELATIONS:
        facts = world.of(relation.id)
        objects = len(world.objects[relation.object_kind])
        print(f"{relation.id:6} {relation.name:12} {len(facts):4} facts, {objects:3} objects, e.g. "
              f"{facts[0].statement(relation.statements[0])}.")
    print(len(world.facts), "facts")
    assert set(BY_ID) == {fact.relation.id for fact in world.facts}
