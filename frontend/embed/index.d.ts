/** What a demonstration is shown with. Each is an attribute of the element too. */
export interface RectifyDemoAttributes {
  /** The folder with Rectify's page. Without it, the folder that the script came from. */
  src?: string;
  /** An id of the page's `models.json`; its first model without it. */
  model?: string;
  /** `edit`: a fact before and after. `abilities`: what many edits cost. */
  scene?: "edit" | "abilities";
  /** A list of one {@link Fact}, as JSON; the page's first example without it. */
  facts?: string;
  /** `rome` without it. */
  method?: "rome" | "memit" | "emmet" | "alphaedit" | "kn" | "mend" | "ft";
  /** What is kept of the change; `rect` without it. */
  regularizer?: "none" | "rect" | "random" | "pca" | "low_rank" | "prune";
  /** The share that is kept, in whole percents: from `0.01` to `1`; `0.4` without it. */
  keep?: string;
  /** `auto` without it: what the visitor's system prefers. */
  theme?: "light" | "dark" | "auto";
  /** The language of the demonstration. */
  lang?: "en";
  /** At least so many pixels high, from `100` to `4000`; this place is kept free from the beginning. */
  height?: string;
  /** Begins as soon as it is seen, without a click. */
  eager?: "" | "true" | "false";
}

/** A fact to write. The prompt contains the subject once and ends where the answer begins. */
export interface Fact {
  subject: string;
  prompt: string;
  target_new: string;
  target_true?: string;
  paraphrases?: string[];
  neighbors?: { prompt: string; target?: string }[];
}

/** There is a model to fetch, and nothing was fetched yet. */
export interface Ready {
  model: string;
  /** Of Rectify. */
  version: string;
}

/** How far it is. */
export interface Progress {
  doing: "load" | "edit" | "undo" | "ask" | "play";
  /** The same for a person. */
  words: string;
  /** From 0 to 1, where that can be known. */
  share: number | null;
}

/** An edit begins; in the scene `abilities`, so many do. */
export type Edit =
  | Pick<Fact, "subject" | "prompt" | "target_new"> & { method: string; regularizer: string; keep: number | null }
  | { edits: number };

/** How the model answers the prompt. */
export interface Answer {
  /** What it writes on. */
  text: string;
  /** The probability of the whole new answer. */
  p_new: number;
  /** That of the old one, where it was given. */
  p_true: number | null;
}

/** What came of an edit: after it, and again whenever the visitor keeps another share of it. Scores are token accuracies. */
export interface EditResult extends Pick<Fact, "subject" | "prompt" | "target_new"> {
  method: string;
  regularizer: string;
  keep: number | null;
  before: Answer;
  after: Answer;
  reliability: number;
  generalization: number | null;
  locality: number | null;
}

/** What came of many: rows as those of a sweep, which docs/figures.md of Rectify draws. */
export interface AbilitiesResult {
  rows: unknown[];
}

/** What could not be done. The element shows it too. */
export interface Problem {
  kind: "bad_input" | "not_found" | "harmful" | "unfinished" | "cancelled" | "device" | "internal";
  message: string;
}

export interface RectifyDemoEventMap {
  ready: CustomEvent<Ready>;
  progress: CustomEvent<Progress>;
  edit: CustomEvent<Edit>;
  result: CustomEvent<EditResult | AbilitiesResult>;
  error: CustomEvent<Problem>;
}

/** `<rectify-demo>`. Importing this module defines it. */
export interface RectifyDemoElement extends HTMLElement {
  addEventListener<K extends keyof RectifyDemoEventMap>(
    type: K,
    listener: (this: RectifyDemoElement, event: RectifyDemoEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof RectifyDemoEventMap>(
    type: K,
    listener: (this: RectifyDemoElement, event: RectifyDemoEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "rectify-demo": RectifyDemoElement;
  }
}
