"use strict";
// The page is whole without this script: it hides what is not chosen, and shows figures of points.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Tabs, with the keys that people expect of them.
  for (const list of all('[role="tablist"]')) {
    const tabs = all('[role="tab"]', list);
    const choose = (chosen) => {
      for (const tab of tabs) {
        const is = tab === chosen;
        tab.setAttribute("aria-selected", String(is));
        tab.tabIndex = is ? 0 : -1;
        document.getElementById(tab.getAttribute("aria-controls")).classList.toggle("away", !is);
      }
    };
    list.addEventListener("click", (event) => {
      const tab = event.target.closest('[role="tab"]');
      if (tab) choose(tab);
    });
    list.addEventListener("keydown", (event) => {
      const at = tabs.indexOf(document.activeElement);
      const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 };
      if (at < 0 || !(event.key in steps)) return;
      event.preventDefault();
      const next = tabs[(steps[event.key] + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
    choose(tabs[0]);
  }

  // The budget of the gallery.
  const radios = all('input[name="kept-budget"]');
  const showBudget = () => {
    const chosen = radios.find((radio) => radio.checked);
    for (const part of all(".kept")) {
      part.classList.toggle("away", part.dataset.budget !== chosen.value);
    }
  };
  for (const radio of radios) radio.addEventListener("change", showBudget);
  if (radios.length) showBudget();

  // Points of the front: a tip beside the pointer or the focus, and what is chosen below the chart.
  const tip = document.getElementById("tip");
  const selected = document.querySelector("[data-selected]");
  const showTip = (point) => {
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const mark = point.querySelector(".mark").getBoundingClientRect();
    const left = mark.left + mark.width / 2 - tip.offsetWidth / 2;
    const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(left, most)) + window.scrollX}px`;
    tip.style.top = `${mark.top - tip.offsetHeight - 10 + window.scrollY}px`;
  };
  const choosePoint = (point) => {
    for (const other of all(".point")) other.classList.toggle("chosen", other === point);
    selected.textContent = point.getAttribute("aria-label");
    const number = point.dataset.budget;
    if (number === "") return;
    document.getElementById(`schedule-tab-${number}`)?.click();
    const radio = radios.find((other) => other.value === number);
    if (radio) {
      radio.checked = true;
      showBudget();
    }
  };
  for (const point of all(".point")) {
    for (const name of ["pointerenter", "focus"]) point.addEventListener(name, () => showTip(point));
    for (const name of ["pointerleave", "blur"]) point.addEventListener(name, () => { tip.hidden = true; });
    point.addEventListener("click", () => choosePoint(point));
    point.addEventListener("keydown", (event) => {
      if (event.key === "Escape") tip.hidden = true;
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choosePoint(point);
    });
  }

  // The legend hides schedules.
  for (const button of all("[data-series]")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const part of all(`[data-of="${button.dataset.series}"]`)) {
        part.classList.toggle("away", !shown);
      }
    });
  }

  // Copying; where the browser forbids it, the text is selected instead.
  for (const button of all("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        code.closest("details").open = true;
        window.getSelection().selectAllChildren(code);
        button.textContent = "Selected: copy it with the keyboard";
      }
      setTimeout(() => { button.textContent = label; }, 3000);
    });
  }
})();
