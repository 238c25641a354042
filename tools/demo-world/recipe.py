"""What each demo model is and how it is trained: the numbers of the model card."""

from dataclasses import dataclass

from model import Shape


@dataclass(frozen=True)
class Recipe:
    shape: Shape
    steps: int
    rate: float  # of Muon, for the matrices of the blocks
    other_rate: float  # of AdamW, for everything else
    fact_rows: int  # of 64 tokens
    n_people: int = 170
    falling: float = 0.6  # the last part of the steps, over which the rates fall to zero
    near_share: float = 0.75  # of the batches of facts, and half of the others; see `WINDOW`
    tasks: int = 0  # so many of them in a step; 0: facts only
    # A model with tasks learns to read first. Steps at which something ends:
    repeating: int = 0  # nothing but `repeat`
    reading: int = 0  # `repeat` and the first drills, from 40 % on the next ones; no fact and no task yet
    drilling: int = 0  # half as many facts, tasks, and a drill; then all facts, tasks, no drill


RECIPES = {
    "demo-nano": Recipe(Shape("gpt2", 64, 4, 2, 2, 256, near_layers=2), 1500, 4e-3, 4e-3, 64, n_people=90),
    "demo-gpt2": Recipe(
        Shape("gpt2", 128, 6, 4, 4, 512, near_layers=2), 3200, 2.5e-3, 1.5e-3, 48, tasks=2,
        repeating=80, reading=600, drilling=1200,
    ),
    "demo-llama": Recipe(Shape("llama", 96, 4, 6, 2, 256, near_layers=2), 1400, 4e-3, 4e-3, 48, n_people=50),
}

# In most batches the first layers see no further than this. A model as small as ours would otherwise fetch a
# name from the last token of the prompt in its very first layer, and answer there; nothing at the subject
# could then be edited. This way a subject's own position gathers what is known of it, as in large models, and
# later layers read it there. The model is used without any window, so some batches go without.
WINDOW = 3

# How often each is drawn. A task that needs several steps of attention gets more.
TASK_WEIGHTS = {
    "reasoning": 0.5, "entailment": 1.5, "open question": 1, "closed question": 2, "dialogue": 2.5, "summary": 1,
    "entities": 2, "sentiment": 0.75,
}
# In the order in which one is made of another.
FIRST_DRILLS = {"seen": 1, "letters": 2}
NEXT_DRILLS = {"seen": 1, "letters": 1, "find": 3, "judge": 1}
DRILLS = {"repeat": 1, "seen": 0.5, "letters": 0.5, "find": 1, "choose": 2, "judge": 2}
