"use strict";
// Details of a mark: where the pointer is, or the focus. A band is one stop of Tab; arrows, Home and End go along it.
const tip = document.getElementById("tip");
const bands = document.querySelectorAll(".band");

for (const band of bands) {
  for (const mark of band.children) {  // or the browser's own tooltip would stand over ours
    mark.setAttribute("aria-label", mark.title);
    mark.removeAttribute("title");
  }
}

function show(mark) {
  const [first, ...rest] = mark.getAttribute("aria-label").split("\n");
  const head = document.createElement("strong");
  head.textContent = first;
  tip.replaceChildren(head, rest.length ? "\n" + rest.join("\n") : "");
  tip.hidden = false;
  tip.style.left = "0";  // as wide as it likes to be, before it is placed
  const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect(), width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(at.left + at.width / 2 - own.width / 2, width - own.width - 8));
  const below = at.bottom + 10;
  const top = below + own.height < window.innerHeight ? below : Math.max(4, at.top - own.height - 14);
  tip.style.left = left + window.scrollX + "px";
  tip.style.top = top + window.scrollY + "px";
}

function hide() {
  tip.hidden = true;
}

function markOf(event) {
  return event.target instanceof Element ? event.target.closest(".band > i") : null;
}

for (const name of ["pointerover", "focusin"]) {
  document.addEventListener(name, (event) => { const mark = markOf(event); if (mark) show(mark); else if (name === "pointerover") hide(); });
}
document.addEventListener("focusout", hide);
document.documentElement.addEventListener("pointerleave", hide);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const mark = markOf(event);
  if (!mark) return;
  const marks = [...mark.parentElement.children], at = marks.indexOf(mark);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: marks.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = marks[Math.max(0, Math.min(to, marks.length - 1))];
  mark.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
