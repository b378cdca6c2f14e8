// The page: the parts, and what they do together.

import { ApiError } from "./api.js";
import { Composer } from "./chat/composer.js";
import { generate, requestBody } from "./chat/generate.js";
import { Pane } from "./chat/pane.js";
import { Conversation, MOST_NODES } from "./data/conversation.js";
import { Store } from "./data/store.js";
import { exportFile, importFile } from "./data/transfer.js";
import { byId } from "./lib/dom.js";
import { counted } from "./lib/numbers.js";
import { Panel } from "./lib/panel.js";
import { keyDialog } from "./panels/key.js";
import { Models } from "./panels/models.js";
import { SettingsPanel } from "./panels/settings.js";
import { Sidebar } from "./panels/sidebar.js";
import { themeButton } from "./panels/theme.js";
import { announce, toast } from "./panels/toast.js";
import { showTask } from "./tasks/tasks.js";

const SAVED_EVERY_MS = 2_000;
const ANNOUNCED = 600; // characters of an answer that a screen reader reads out at once

class Page {
  constructor() {
    this.store = new Store();
    this.conversation = this.fresh();
    this.leaving = false; // the browser closes the page, and ends its requests
    this.stopper = null; // of the answer that is being made
    this.models = new Models((model) => this.modelChosen(model));
    this.settings = new SettingsPanel((settings) => this.settingsChanged(settings));
    this.sidebar = new Sidebar({ open: (id) => this.open(id), remove: (conversation) => this.remove(conversation) });
    this.pane = new Pane({
      edit: (node, text) => this.ask(text, this.before(node)),
      regenerate: (node) => this.answer(this.before(node)),
      choose: (node) => this.choose(node),
      results: (node, texts) => this.giveResults(node, texts),
    });
    this.composer = new Composer({
      onsend: (text) => this.ask(text, this.conversation.path().at(-1) ?? null),
      onstop: () => this.stopper?.abort(),
      oneditlast: () => [...this.pane.turns.values()].findLast((turn) => turn.node.role === "user")?.startEdit(),
    });
    this.sidebarPanel = new Panel(byId("sidebar"), byId("show-sidebar"), { open: true });
    this.settingsPanel = new Panel(byId("settings"), byId("show-settings"));
    this.listen();
  }

  listen() {
    this.store.onchange = (id) => {
      if (id === this.conversation.id && !this.stopper) this.conversation = this.store.get(id) ?? this.fresh();
      this.show();
    };
    // The address names the conversation, so the link must not change it.
    byId("skip").addEventListener("click", (event) => {
      event.preventDefault();
      (byId("chat").hidden ? byId("task").querySelector("textarea") : this.composer.field)?.focus();
    });
    byId("new").addEventListener("click", () => this.open(null));
    byId("retry").addEventListener("click", () => this.start());
    byId("export").addEventListener("click", () => exportFile(this.store.list()));
    byId("export-one").addEventListener("click", () => exportFile([this.conversation]));
    byId("import").addEventListener("click", () => byId("import-file").click());
    byId("import-file").addEventListener("change", (event) => this.import(event.target));
    for (const close of document.querySelectorAll("[data-close]")) {
      close.addEventListener("click", () => {
        const panel = close.dataset.close === "sidebar" ? this.sidebarPanel : this.settingsPanel;
        panel.close();
        panel.button.focus();
      });
    }
    for (const suggestion of document.querySelectorAll("[data-suggestion]")) {
      suggestion.addEventListener("click", () => this.ask(suggestion.textContent.trim(), null));
    }
    addEventListener("pagehide", () => {
      this.leaving = true;
      if (this.busy) this.store.save(this.conversation);
    });
    addEventListener("pageshow", () => { this.leaving = false; });
    addEventListener("hashchange", () => this.openNamed());
  }

  /** Read the models, and show the conversation that the address names. */
  async start() {
    byId("offline").hidden = true;
    try {
      await this.models.load();
      if (this.models.list.length === 0) throw new ApiError("the server has no models", 200);
    } catch (error) {
      byId("offline-reason").textContent = `The models cannot be listed: ${error.message}.`;
      byId("offline").hidden = false;
    }
    this.openNamed();
    this.composer.focus();
  }

  get busy() {
    return this.stopper !== null;
  }

  fresh() {
    return new Conversation({ settings: this.store.settings });
  }

  modelChosen(model) {
    const chats = model.task === "text-generation" && model.chat;
    byId("chat").hidden = !chats;
    byId("task").hidden = chats;
    if (!chats) showTask(model);
    this.composer.setReady(chats);
    this.show();
  }

  settingsChanged(settings) {
    this.conversation.settings = settings;
    this.store.settings = settings;
    if (!this.conversation.empty) this.save();
  }

  open(id) {
    const hash = id === null ? "" : `#${id}`;
    if (location.hash !== hash) history.pushState(null, "", hash || location.pathname + location.search);
    this.openNamed();
    this.sidebarPanel.yield();
    this.composer.focus();
  }

  openNamed() {
    const id = location.hash.slice(1);
    if (id !== this.conversation.id || this.conversation.empty) {
      this.stopper?.abort();
      this.conversation = this.store.get(id) ?? this.fresh();
    }
    this.show();
    this.pane.toEnd();
  }

  remove(conversation) {
    if (conversation.id === this.conversation.id) this.stopper?.abort();
    this.store.delete(conversation.id);
    if (conversation.id === this.conversation.id) this.open(null);
    this.show();
    toast("The conversation is deleted.", {
      label: "Undo",
      run: () => {
        this.store.save(conversation);
        this.show();
      },
    });
  }

  async import(input) {
    try {
      const found = await importFile(input.files[0]);
      for (const conversation of found) this.store.save(conversation);
      toast(`${counted(found.length, "conversation")} imported.`);
      this.openNamed();
    } catch (error) {
      toast(error.message);
    }
    input.value = "";
  }

  /** Return the message before another one; null at the beginning. */
  before(node) {
    return this.conversation.nodes.find(({ id }) => id === node.after) ?? null;
  }

  choose(node) {
    this.conversation.choose(node);
    this.save();
    this.show();
  }

  /** Send a message after another one; return whether it was sent. */
  ask(text, after) {
    if (this.busy || !this.models.chosen) return false;
    if (this.conversation.nodes.length + 2 > MOST_NODES) {
      toast("This conversation has as many messages as the page can keep; begin a new one.");
      return false;
    }
    this.answer(this.conversation.add(after, { role: "user", content: text }));
    return true;
  }

  giveResults(node, texts) {
    if (this.busy) return;
    let last = node;
    for (const [index, content] of texts.entries()) {
      last = this.conversation.add(last, { role: "tool", content, tool_call_id: node.tool_calls[index].id });
    }
    this.answer(last);
  }

  /** Let the model answer after a message. */
  async answer(after) {
    if (this.busy) return;
    const { conversation, models: { chosen: model } } = this;
    conversation.chosen.delete(after.id);
    const path = conversation.path();
    const node = conversation.add(after, { role: "assistant", content: "", facts: { model: model.id, at: Date.now() } });
    this.stopper = new AbortController();
    this.save(conversation);
    this.pane.toEnd();
    this.composer.setBusy(true);
    if (location.hash.slice(1) !== conversation.id) history.replaceState(null, "", `#${conversation.id}`);
    announce("The model writes.");
    let saved = Date.now();
    try {
      const body = requestBody(model, conversation.settings, path);
      node.facts.running = true;
      this.show();
      await generate(node, body, this.stopper.signal, () => {
        if (conversation === this.conversation) this.pane.grow();
        if (Date.now() - saved < SAVED_EVERY_MS) return;
        saved = Date.now();
        this.store.save(conversation);
      });
    } catch (error) {
      node.facts.error = error.message; // settings that are not JSON
    }
    this.stopper = null;
    this.composer.setBusy(false);
    this.ended(conversation, node);
  }

  ended(conversation, node) {
    if (this.leaving) return; // what was there has been kept
    conversation.touch();
    if (this.store.get(conversation.id)) this.save(conversation);
    this.show();
    const { error, stopped } = node.facts;
    const said = error ? `The answer failed: ${error}` : node.tool_calls ? "The model calls a tool." : node.content;
    announce(stopped ? "Stopped." : said.slice(0, ANNOUNCED));
  }

  save(conversation = this.conversation) {
    if (!this.store.save(conversation)) toast("The browser has no room for this conversation; export it, or delete others.");
  }

  show() {
    this.pane.show(this.conversation, this.busy);
    this.sidebar.show(this.store.list(), this.conversation);
    this.settings.show(this.conversation.settings, this.models.chosen);
    byId("welcome").hidden = !this.conversation.empty;
    byId("turns").hidden = this.conversation.empty;
    byId("export-one").disabled = this.conversation.empty;
    document.title = this.conversation.title === "" ? "intaglio" : `${this.conversation.title} · intaglio`;
    byId("title").textContent = this.conversation.title || "New conversation";
  }
}

keyDialog();
themeButton();
new Page().start();
