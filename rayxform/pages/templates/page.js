"use strict";
document.documentElement.classList.add("js");
(() => {
  const main = document.getElementById("main");
  const news = document.getElementById("news");

  function filterFiles() {
    const input = document.getElementById("filter");
    const wanted = input ? input.value.toLowerCase() : "";
    for (const row of main.querySelectorAll("tr[data-name]")) {
      row.hidden = !row.dataset.name.toLowerCase().includes(wanted);
    }
  }
  document.addEventListener("input", (event) => {
    if (event.target.id === "filter") filterFiles();
  });

  // The value under the pointer.
  document.addEventListener("pointermove", (event) => {
    const plot = event.target.closest && event.target.closest("svg[data-values]");
    if (!plot) return;
    const box = plot.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width;
    const values = JSON.parse(plot.dataset.values);
    const near = values.reduce((one, other) => (Math.abs(other[0] - at) < Math.abs(one[0] - at) ? other : one));
    plot.querySelector(".cursor").setAttribute("d", `M${near[0] * 1000} 0V100`);
    plot.closest("figure").querySelector("output").textContent = `${near[2]} after ${near[1]}`;
  });

  // How to find an element again in new content: by its id, by what it opens, or by where it stands.
  function finderOf(element) {
    if (!element || element === main || !main.contains(element)) return null;
    const around = element.closest("details[id]");
    const [id, opened] = [element.id, around && element.localName === "summary" ? around.id : ""];
    if (id) return () => document.getElementById(id);
    if (opened) return () => document.getElementById(opened)?.querySelector("summary");
    const label = element.getAttribute("aria-label");
    const index = [...main.querySelectorAll(element.localName)].indexOf(element);
    return () => {
      const alike = [...main.querySelectorAll(element.localName)];
      return alike.find((one) => label && one.getAttribute("aria-label") === label) || alike[index];
    };
  }

  // Put the new content in the place of the old, and leave as it was what the reader did to the old.
  function replaceMain(fresh) {
    const findFocus = finderOf(document.activeElement);
    const caret = document.activeElement && document.activeElement.selectionStart;
    const open = new Map([...main.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
    const scrolls = [...main.querySelectorAll(".scroll[id]")].map((one) => [one.id, one.scrollTop, one.scrollLeft]);
    const filter = document.getElementById("filter");
    const typed = filter ? filter.value : "";
    const top = window.scrollY;
    main.replaceChildren(...fresh.childNodes);
    for (const one of main.querySelectorAll("details[id]")) {
      if (open.has(one.id)) one.open = open.get(one.id);
    }
    const again = document.getElementById("filter");
    if (again) again.value = typed;
    filterFiles();
    for (const [id, y, x] of scrolls) {
      const box = document.getElementById(id);
      if (box) box.scrollTo({ top: y, left: x, behavior: "instant" });
    }
    const focused = findFocus && findFocus();
    if (focused) {
      focused.focus({ preventScroll: true });
      if (focused.id === "filter" && caret !== null) focused.setSelectionRange(caret, caret);
    }
    window.scrollTo({ top, behavior: "instant" });
  }

  function statusOf(place) {
    const status = place.querySelector("#status");
    return status ? status.textContent.trim() : "";
  }

  async function refresh() {
    const answer = await fetch(location.href, { cache: "no-store", headers: { Accept: "text/html" } });
    if (!answer.ok) throw new Error(`${answer.status}`);
    // Only the content is parsed: the style of the new page has another nonce, which this page's policy refuses.
    const text = await answer.text();
    const content = text.slice(text.indexOf("<main"), text.lastIndexOf("</main>"));
    const fresh = new DOMParser().parseFromString(content, "text/html").querySelector("main");
    if (!fresh) throw new Error("no page");
    const before = statusOf(main);
    const selected = window.getSelection();
    const isSelecting = selected && !selected.isCollapsed && main.contains(selected.anchorNode);
    const isOver = !("live" in fresh.dataset);
    if (isSelecting && !isOver) return;
    replaceMain(fresh);
    document.title = fresh.dataset.title;
    if (statusOf(main) !== before) news.textContent = `The job is ${statusOf(main)}.`;
    else if (news.dataset.lost) news.textContent = "The server answers again.";
    delete news.dataset.lost;
    news.classList.add("quiet");
    if (isOver) delete main.dataset.live;
  }

  async function keepFresh() {
    if (!("live" in main.dataset)) return;
    if (!document.hidden) {
      try {
        await refresh();
      } catch {
        news.dataset.lost = "1";
        news.classList.remove("quiet");
        news.textContent = "The server does not answer; this page shows what it said last, and asks again.";
      }
    }
    setTimeout(keepFresh, Number(main.dataset.live) * 1000);
  }
  if ("live" in main.dataset) setTimeout(keepFresh, Number(main.dataset.live) * 1000);
})();
