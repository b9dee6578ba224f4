"use strict";
(() => {
  const numberOf = (text) => (text === "" || text === undefined ? null : Number(text));

  // What has no value stands last, whichever way is sorted.
  const compare = (a, b, descending) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    const order = typeof a === "string" ? a.localeCompare(b) : a - b;
    return descending ? -order : order;
  };

  // Tables: a button in every heading.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const descending = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          return "value" in cell.dataset ? numberOf(cell.dataset.value) : cell.textContent.trim();
        };
        body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b), descending)));
      });
    });
  }

  // One model at a time.
  const models = [...document.querySelectorAll("article.model")];
  const show = (key) => models.forEach((model) => (model.hidden = model.id !== key));
  for (const choice of document.querySelectorAll("input[name=model]")) {
    choice.addEventListener("change", () => show(choice.value));
    if (choice.checked) show(choice.value); // a browser may remember the choice
  }

  // The gallery of each model.
  for (const form of document.querySelectorAll("form.tools")) {
    const list = form.parentElement.querySelector("ol.gallery");
    const items = [...list.children];
    const update = () => {
      const [field, way] = form.elements.sort.value.split(":");
      const key = (item) => (field === "case" ? item.dataset.case : numberOf(item.dataset[field]));
      list.append(...[...items].sort((a, b) => compare(key(a), key(b), way === "down")));
      const source = form.elements.source ? form.elements.source.value : "*";
      const wanted = [...form.querySelectorAll("input[name=tag]:checked")].map((box) => box.value);
      let shown = 0;
      for (const item of items) {
        const tags = item.dataset.tags.split("; ");
        const fits = !wanted.length || wanted.some((tag) => tags.includes(tag));
        item.hidden = !fits || (source !== "*" && item.dataset.source !== source);
        shown += item.hidden ? 0 : 1;
      }
      form.querySelector("output").textContent = `${shown} of ${items.length} cases`;
    };
    form.addEventListener("change", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(update)); // when the fields are reset
    update();
  }

  // A picture at full size; arrow keys go through the cases as they are sorted and filtered.
  const viewer = document.getElementById("viewer");
  let current = null;
  const open = (item) => {
    current = item;
    const picture = item.querySelector("img");
    const [shown] = viewer.getElementsByTagName("img");
    shown.src = picture.src;
    shown.alt = picture.alt;
    viewer.querySelector("p").replaceChildren(...item.querySelector("figcaption").cloneNode(true).childNodes);
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const visible = [...current.parentElement.children].filter((item) => !item.hidden);
    open(visible[(visible.indexOf(current) + by + visible.length) % visible.length]);
  };
  for (const button of document.querySelectorAll("button.picture")) {
    button.addEventListener("click", () => open(button.closest("li")));
  }
  viewer.addEventListener("click", (event) => {
    if (event.target.dataset.step) step(Number(event.target.dataset.step));
    else if (event.target === viewer || "close" in event.target.dataset) viewer.close();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  viewer.addEventListener("close", () => current.querySelector("button.picture").focus());

  // Paper has no switch: what is folded up is printed too.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((fold) => (fold.open = true));
  });
})();
