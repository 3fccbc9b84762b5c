// Filters the list of cases, and opens the case that a link names. The page can be read without.
(() => {
  "use strict";
  const form = document.querySelector(".filters");
  const cases = [...document.querySelectorAll(".case")].map((element) => ({
    element,
    marks: JSON.parse(element.dataset.marks),
    search: element.dataset.search,
  }));
  const names = ["text", "change", "grader", "configuration", "tag"];
  const field = (name) => form.elements.namedItem(name);

  const fits = (one, wanted) => {
    if (wanted.text && !one.search.includes(wanted.text.trim().toLowerCase())) return false;
    if (wanted.tag && !one.marks.some(([kind, tag]) => kind === "tag" && tag === wanted.tag)) return false;
    if (!wanted.change) {
      return !wanted.grader && !wanted.configuration
        ? true
        : one.marks.some(([kind, configuration, grader]) => kind !== "tag" && kind !== "failed"
            && (!wanted.configuration || configuration === wanted.configuration) && (!wanted.grader || grader === wanted.grader));
    }
    return one.marks.some(([kind, configuration, grader]) => kind === wanted.change
      && (!wanted.configuration || configuration === wanted.configuration)
      && (!wanted.grader || kind === "failed" || grader === wanted.grader));
  };

  const apply = () => {
    const wanted = Object.fromEntries(names.map((name) => [name, field(name) ? field(name).value : ""]));
    let shown = 0;
    for (const one of cases) {
      const hidden = !fits(one, wanted);
      one.element.hidden = hidden;
      shown += hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = shown === cases.length ? `${shown} cases` : `${shown} of ${cases.length} cases`;
  };

  const follow = () => {
    const hash = location.hash;
    if (hash.startsWith("#cases?")) {
      const wanted = new URLSearchParams(hash.slice(7));
      for (const name of names) if (field(name)) field(name).value = wanted.get(name) || "";
      apply();
      document.getElementById("cases").scrollIntoView();
      return;
    }
    const found = hash.length > 1 && document.getElementById(hash.slice(1));
    const one = found && found.closest(".case");
    if (!one) return;
    if (one.hidden) {
      form.reset();
      apply();
    }
    one.open = true;
    found.scrollIntoView();
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  // A link to where the page already is changes nothing, and is to be followed all the same.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link && link.getAttribute("href") === location.hash) follow();
  });
  window.addEventListener("hashchange", follow);
  apply();
  follow();
})();
