// <rectify-demo>: an edit of a fact inside a language model, shown on any page and computed in the visitor's browser.
//
// The element holds a frame with Rectify's embed.html, which lies beside this script or in the folder that `src` names,
// and tells what happens there as events: ready, progress, edit, result, error. docs/embedding.md describes both.
// This is a plain script: `<script async src="…/rectify-demo.js"></script>`, or `import "rectify-demo"`.
(() => {
  // Not in a browser, or here already.
  if (typeof customElements === "undefined" || customElements.get("rectify-demo")) return;

  const script = document.currentScript?.src;
  const PARAMETERS = ["model", "scene", "facts", "method", "regularizer", "keep", "theme", "lang", "height", "eager"];
  const EVENTS = ["ready", "progress", "edit", "result", "error"];
  // What the frame cannot do without: its program; the files of its own origin; a link to the playground. It cannot
  // navigate this page, submit forms, open dialogs or start downloads.
  const SANDBOX = "allow-scripts allow-same-origin allow-popups allow-popups-to-escape-sandbox";
  const HEIGHT = { usual: 420, least: 100, most: 8000 };

  const style = new CSSStyleSheet();
  style.replaceSync(`
    :host { display: block; max-width: 860px; margin-inline: auto; }
    :host([hidden]) { display: none; }
    iframe { display: block; width: 100%; border: 0; color-scheme: normal; }
    p { margin: 0; padding: 10px 12px; border-left: 3px solid #b3261e; font: 14px/1.5 system-ui, sans-serif; }
  `);

  // The address of embed.html with an element's attributes, or an error that says what is wrong with them.
  function address(element) {
    const source = element.getAttribute("src") ?? script;
    if (!source) throw new Error("src is missing: it names the folder with Rectify's embed.html");
    const here = URL.parse(source, document.baseURI);
    if (here?.protocol !== "https:" && here?.protocol !== "http:") {
      throw new Error(`src is ${JSON.stringify(source)}; it must be an http or https address`);
    }
    if (element.hasAttribute("src") && !here.pathname.endsWith("/")) here.pathname += "/";
    const page = new URL("embed.html", here);
    const query = new URLSearchParams({ v: "1" });
    for (const name of PARAMETERS) {
      const value = element.getAttribute(name);
      if (value !== null) query.set(name, name === "eager" && value === "" ? "true" : value);
    }
    page.search = query;
    return page;
  }

  class RectifyDemo extends HTMLElement {
    static observedAttributes = ["src", ...PARAMETERS];

    #root = this.attachShadow({ mode: "open" });
    #watch = null; // until it is seen
    #frame = null; // from then on
    #origin = null;
    #stale = false;

    constructor() {
      super();
      this.#root.adoptedStyleSheets = [style];
    }

    connectedCallback() {
      window.addEventListener("message", this.#hear);
      this.#wait();
    }

    disconnectedCallback() {
      window.removeEventListener("message", this.#hear);
      this.#clear();
    }

    attributeChangedCallback(name, before, after) {
      if (before === after || this.#stale || !this.isConnected) return;
      this.#stale = true; // several may change at once
      queueMicrotask(() => {
        this.#stale = false;
        if (this.isConnected) this.#wait();
      });
    }

    #clear() {
      this.#watch?.disconnect();
      this.#watch = this.#frame = this.#origin = null;
      this.#root.replaceChildren();
    }

    // Keeps the place free and begins when a visitor comes near.
    #wait() {
      this.#clear();
      const place = document.createElement("div");
      place.style.height = `${this.#height}px`;
      this.#root.append(place);
      this.#watch = new IntersectionObserver(
        (entries) => entries.some((entry) => entry.isIntersecting) && this.#show(),
        { rootMargin: "200px" },
      );
      this.#watch.observe(place);
    }

    #show() {
      this.#clear();
      let page;
      try {
        page = address(this);
      } catch (problem) {
        return this.#fail(problem.message);
      }
      const frame = document.createElement("iframe");
      frame.title = this.title || "Rectify: edit a fact inside a language model";
      frame.setAttribute("sandbox", SANDBOX);
      frame.referrerPolicy = "no-referrer";
      frame.style.height = `${this.#height}px`;
      frame.src = page;
      this.#frame = frame;
      this.#origin = page.origin;
      this.#root.append(frame);
    }

    #fail(message) {
      const words = document.createElement("p");
      words.setAttribute("role", "alert");
      words.textContent = `This demonstration cannot be shown: ${message}.`;
      this.#root.replaceChildren(words);
      this.#tell("error", { kind: "bad_input", message });
    }

    // Hears its own frame and nobody else.
    #hear = (message) => {
      if (!this.#frame || message.source !== this.#frame.contentWindow || message.origin !== this.#origin) return;
      const { rectify: name, detail } = message.data ?? {};
      if (name === "height" && Number.isFinite(detail)) {
        this.#frame.style.height = `${Math.min(Math.max(detail, HEIGHT.least), HEIGHT.most)}px`;
      } else if (EVENTS.includes(name)) {
        this.#tell(name, detail);
      }
    };

    #tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail }));
    }

    // What is kept free before the demonstration says how high it is.
    get #height() {
      const asked = Number(this.getAttribute("height") ?? HEIGHT.usual);
      return asked >= HEIGHT.least && asked <= HEIGHT.most ? asked : HEIGHT.usual;
    }
  }

  customElements.define("rectify-demo", RectifyDemo);
})();
