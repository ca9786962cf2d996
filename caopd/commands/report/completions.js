// Filters the completions of a report. Texts are set as text, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("completions-data").textContent);
  const section = document.getElementById("completions");
  const form = document.getElementById("completions-form");
  const found = document.getElementById("completions-found");
  const table = document.getElementById("completions-table");
  const pages = document.getElementById("completions-pages");
  const [back, on] = pages.querySelectorAll("button");
  const PER_PAGE = 25;
  const VERDICTS = new Map([[true, "correct"], [false, "wrong"], [null, "no verdict"]]);

  const sources = data.sources.map(([run, step, event, task]) => ({ run, step, event, task }));
  const prompts = data.prompts.map(([id, category, question, target]) => (
    { id, category, question, target, searched: [id, question, target].join("\n").toLowerCase() }
  ));
  const rows = data.rows.map(([source, prompt, sample, response, answer, correct, confidence, outcome, mu_hat]) => ({
    ...sources[source], number: source, prompt: prompts[prompt], category: prompts[prompt].category, sample, response,
    answer, verdict: VERDICTS.get(correct), confidence, outcome, mu_hat,
    searched: `${response}\n${answer}`.toLowerCase(),
  }));
  let shown = rows;
  let page = 0;
  let only = null; // the number of a file, if a link of the table was followed

  function offer(name) {
    const values = [...new Set(rows.map(row => row[name]))];
    const select = form.elements[name];
    select.add(new Option("all", ""));
    values.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    values.forEach((value, index) => select.add(new Option(value || "none", String(index + 1))));
    select.closest("label").hidden = values.length < 2;
    return values;
  }

  const CHOICES = new Map(["run", "step", "event", "task", "category"].map(name => [name, offer(name)]));

  function filtered() {
    const wanted = form.elements.text.value.trim().toLowerCase();
    const chosen = [...CHOICES].filter(([name]) => form.elements[name].value)
      .map(([name, values]) => [name, values[form.elements[name].value - 1]]);
    const verdict = form.elements.verdict.value;
    const stated = form.elements.stated.value;
    const [low, high] = ["low", "high"].map(name => form.elements[name].value).map(text => (text === "" ? null : +text));
    return rows.filter(row => (only === null || row.number === only)
      && chosen.every(([name, value]) => row[name] === value)
      && (!verdict || row.verdict === verdict)
      && (!stated || (row.confidence !== null) === (stated === "yes"))
      // A completion without a confidence is in no range.
      && (low === null || (row.confidence !== null && row.confidence >= low))
      && (high === null || (row.confidence !== null && row.confidence <= high))
      && (!wanted || row.searched.includes(wanted) || row.prompt.searched.includes(wanted)));
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Returns a block with a text in which every place that is looked for is marked.
  function passage(text, className) {
    const block = element("div", undefined, className);
    const wanted = form.elements.text.value.trim().toLowerCase();
    const lower = text.toLowerCase();
    let end = 0;
    if (wanted && lower.length === text.length) {
      for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, end)) {
        block.append(text.slice(end, at), element("mark", text.slice(at, at + wanted.length)));
        end = at + wanted.length;
      }
    }
    block.append(text.slice(end));
    return block;
  }

  function cell(title, ...blocks) {
    const made = element("td");
    made.dataset.title = title;
    made.append(...blocks);
    return made;
  }

  function text(content) {
    const block = passage(content, "text");
    block.tabIndex = 0; // a long text is scrolled with the keyboard, too
    return block;
  }

  function line(row) {
    const where = [row.step, row.task, row.event, row.sample === null ? "" : `sample ${row.sample + 1}`];
    const said = row.confidence === null ? "none" : row.confidence.toFixed(2);
    const made = element("tr");
    const notes = [row.outcome && row.outcome !== "decimal" ? row.outcome.replaceAll("_", " ") : "",
      row.mu_hat === null ? "" : `empirical ${row.mu_hat.toFixed(2)}`];
    made.append(
      cell("Run", element("div", row.run), element("div", where.filter(Boolean).join(", "), "note")),
      cell("Prompt", passage([row.prompt.id, row.category].filter(Boolean).join(", "), "note"), text(row.prompt.question)),
      cell("Completion", text(row.response)),
      cell("Verdict", element("div", row.verdict, row.verdict.replace(" ", "-")),
        passage(`answer: ${row.answer || "none"}`, "note"), passage(`target: ${row.prompt.target}`, "note")),
      cell("Confidence", element("div", said), ...notes.filter(Boolean).map(note => element("div", note, "note"))),
    );
    return made;
  }

  function summary() {
    const judged = shown.filter(row => row.verdict !== "no verdict");
    const stated = shown.filter(row => row.confidence !== null);
    const right = judged.filter(row => row.verdict === "correct").length;
    const mean = stated.reduce((sum, row) => sum + row.confidence, 0) / stated.length;
    const parts = [`${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} completions`];
    if (judged.length) parts.push(`${(100 * right / judged.length).toFixed(1)} % correct`);
    if (stated.length) parts.push(`mean confidence ${mean.toFixed(2)}`);
    if (only !== null) parts.push("of one file: Clear shows all");
    return parts.join("; ");
  }

  function render() {
    const first = page * PER_PAGE;
    const last = Math.min(first + PER_PAGE, shown.length);
    table.tBodies[0].replaceChildren(...shown.slice(first, last).map(line));
    table.hidden = shown.length === 0;
    const texts = [...table.querySelectorAll(".text")];
    const long = texts.filter(block => block.scrollHeight > block.clientHeight);
    long.forEach(block => block.classList.add("long"));
    found.textContent = shown.length ? summary() : `No completion of ${rows.length.toLocaleString("en")} is such: widen the filter.`;
    pages.hidden = shown.length <= PER_PAGE;
    pages.querySelector("span").textContent = `${first + 1} to ${last} of ${shown.length}`;
    back.disabled = page === 0;
    on.disabled = last === shown.length;
  }

  function update() {
    shown = filtered();
    page = 0;
    render();
  }

  function turn(by) {
    page += by;
    render();
    found.scrollIntoView();
  }

  // Each file of the table above leads to its completions.
  section.querySelectorAll("details tbody tr").forEach((row, number) => {
    const link = element("a", row.cells[0].textContent);
    link.href = "#completions-found";
    link.addEventListener("click", () => {
      form.reset();
      only = number;
      update();
    });
    row.cells[0].replaceChildren(link);
  });
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => {
    only = null;
    setTimeout(update); // once the fields are empty
  });
  back.addEventListener("click", () => turn(-1));
  on.addEventListener("click", () => turn(1));
  form.hidden = false;
  update();
})();
