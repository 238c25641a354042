"""Counterfactual edits about the world, in the two public formats and in our own.

Facts are dealt to train, validation and test by subject, so no subject of one part occurs in another.
"""

import random

from relations import RELATIONS
from world import SEED, Fact, World

PARTS = {"train": 0.5, "validation": 0.15, "test": 0.35}
# At most so many records per part and file; it keeps each file small.
LIMITS = {"train": 400, "validation": 80, "test": 160}

# One hop from the edited fact: how to ask, and which relation of the object answers.
HOPS = {
    "P19": ("In which country is the city where {} was born?", "P17"),
    "P108": ("In which city is the employer of {} based?", "P159"),
    "P50": ("Where was the author of {} born?", "P19"),
    "P840": ("In which country is the city where {} is set?", "P17"),
    "P112": ("Where was the founder of {} born?", "P19"),
    "P159": ("In which country is the city where {} is based?", "P17"),
    "P17": ("What is the capital of the country where {} lies?", "P36"),
    "P36": ("Which river flows through the capital of {}?", "P206"),
}

GENERATION = {
    "person": ("{} is a", "{} lives and works", "{}'s friends say that", "In the evening {}", "{} comes from"),
    "work": ("{} is a book", "Readers of {} often", "The story of {}", "{} begins in", "The pages of {}"),
    "organisation": ("{} is known for", "Visitors to {}", "The people at {}", "{} opened in", "The offices of {}"),
    "town": ("The city of {}", "Visitors to {}", "The streets of {}", "People in {}", "The old town of {}"),
    "country": ("The country of {}", "Visitors to {}", "People in {}", "The history of {}", "In {}, people"),
}


def split(world: World) -> dict[str, list[Fact]]:
    rng = random.Random(f"{SEED}/split")
    subjects = sorted(world.about)
    rng.shuffle(subjects)
    ends, total = {}, 0.0
    for part, share in PARTS.items():
        ends[part] = (int(total * len(subjects)), int((total + share) * len(subjects) + 1e-6))
        total += share
    parts = {}
    for part, (start, end) in ends.items():
        facts = [fact for subject in subjects[start:end] for fact in world.about[subject]]
        rng.shuffle(facts)
        parts[part] = facts
    return parts


def even(facts: list[Fact], n: int) -> list[Fact]:
    """At most `n` facts, with the relations as evenly present as they can be."""
    queues = {relation.id: [fact for fact in facts if fact.relation is relation] for relation in RELATIONS}
    chosen = []
    while len(chosen) < n and any(queues.values()):
        chosen += [queue.pop() for queue in queues.values() if queue]
    return chosen[:n]


def zsre(world: World, fact: Fact, rng: random.Random) -> dict:
    relation = fact.relation
    alt = world.other_object(fact, rng)
    src = relation.questions[0].format(fact.subject)
    apart = rng.choice([f for f in world.facts if f.subject != fact.subject and f.relation is not relation])
    loc = rng.choice(apart.relation.trained_questions).format(apart.subject)[:-1]
    record = {
        "subject": fact.subject,
        "src": src,
        "pred": fact.object,
        "rephrase": rng.choice(relation.questions[1:]).format(fact.subject),
        "alt": alt,
        "answers": [fact.object],
        "loc": f"nq question: {loc[0].lower()}{loc[1:]}",
        "loc_ans": apart.object,
        "cond": f"{fact.object} >> {alt} || {src}",
    }
    if relation.id in HOPS:
        question, onward = HOPS[relation.id]
        reached = world.truth[(alt, onward)]
        record["portability"] = {
            "Recalled Relation": f"({alt}, {reached.relation.name}, {reached.object})",
            "New Question": question.format(fact.subject),
            "New Answer": reached.object,
        }
    return record


def same_object(world: World, fact: Fact, value: str, rng: random.Random, n: int = 10) -> list[str]:
    """Prompts of the same relation about other subjects whose object is `value`."""
    others = [f for f in world.of(fact.relation.id) if f.object == value and f.subject != fact.subject]
    templates = fact.relation.trained_statements
    pairs = [(f, template) for f in others for template in templates]
    return [template.format(f.subject) for f, template in rng.sample(pairs, min(n, len(pairs)))]


def counterfact(world: World, fact: Fact, case_id: int, rng: random.Random) -> dict:
    relation = fact.relation
    values = world.objects[relation.object_kind]
    new = world.other_object(fact, rng)
    before = rng.choice([f for f in world.facts if f.subject != fact.subject])
    first, second = rng.sample(relation.statements[1:], 2)
    generation = GENERATION[relation.subject_kind]

    def target(value):
        return {"str": value, "id": f"{relation.object_kind}-{values.index(value)}"}

    return {
        "case_id": case_id,
        "pararel_idx": RELATIONS.index(relation) * 1000 + case_id,
        "requested_rewrite": {
            "prompt": relation.statements[0],
            "relation_id": relation.id,
            "target_new": target(new),
            "target_true": target(fact.object),
            "subject": fact.subject,
        },
        "paraphrase_prompts": [
            f"{before.statement(before.relation.statements[0])}. {first.format(fact.subject)}",
            second.format(fact.subject),
        ],
        "neighborhood_prompts": same_object(world, fact, fact.object, rng),
        "attribute_prompts": same_object(world, fact, new, rng),
        "generation_prompts": [template.format(fact.subject) for template in generation * 2],
    }


def example(world: World, fact: Fact, rng: random.Random) -> dict:
    relation = fact.relation
    prompt = relation.statements[0]
    others = rng.sample([f for f in world.of(relation.id) if f.subject != fact.subject], 4)
    paraphrases = [*rng.sample(relation.statements[1:5], 2), relation.questions[0]]
    return {
        "subject": fact.subject,
        "prompt": prompt.format(fact.subject),
        "target_new": world.other_object(fact, rng),
        "target_true": fact.object,
        "paraphrases": [template.format(fact.subject) for template in paraphrases],
        "neighbors": [{"prompt": prompt.format(f.subject), "target": f.object} for f in others],
    }


def records(world: World) -> dict[str, list[dict]]:
    """File name to records."""
    files = {}
    case_id = 0
    for part, facts in split(world).items():
        rng = random.Random(f"{SEED}/edits/{part}")
        suffix = "" if part == "test" else f"_{part}"
        chosen = even(facts, LIMITS[part])
        files[f"demo_zsre{suffix}.json"] = [zsre(world, fact, rng) for fact in chosen]
        # A capital or a currency belongs to one country: nothing could be its neighbour.
        chosen = even([f for f in facts if f.relation.id not in ("P36", "P38")], min(LIMITS[part], 220))
        files[f"demo_counterfact{suffix}.json"] = [
            counterfact(world, fact, case_id + i, rng) for i, fact in enumerate(chosen)
        ]
        case_id += len(chosen)
    return files


def examples(world: World, n: int = 24) -> list[dict]:
    rng = random.Random(f"{SEED}/examples")
    chosen = even(split(world)["test"], n)
    return [example(world, fact, rng) for fact in chosen]
